// Makes garbage while a second thread does too, and prints sums. Usage: Garbage ROUNDS
import java.util.HashMap;
import java.util.Map;

public class Garbage {
	private static long churn(Map<Integer, byte[]> map, long sum, int round) {
		for (int k = 0; k < 200; k++) {
			byte[] b = new byte[1000 + k];
			b[round % 1000] = (byte) k;
			map.put((round * 31 + k) % 5000, b);
			sum = sum * 31 + b[(int) ((sum >>> 1) % 1000)] + round;
		}
		return sum;
	}

	public static void main(String[] args) throws Exception {
		int rounds = Integer.parseInt(args[0]);
		Map<Integer, byte[]> map = new HashMap<>();
		long[] other = { 7 };
		Thread thread = new Thread(() -> {
			Map<Integer, byte[]> mine = new HashMap<>();
			for (int i = 0; i < rounds; i++)
				other[0] = churn(mine, other[0], i);
		});
		long sum = 7;

		thread.start();
		for (int i = 0; i < rounds; i++) {
			sum = churn(map, sum, i);
			if (i % 100 == 0)
				System.out.println(i + " " + sum);
			Thread.sleep(1);
		}
		thread.join();
		System.out.println("end " + sum + " " + other[0] + " " + map.size());
	}
}
