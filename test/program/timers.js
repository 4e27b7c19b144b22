// Timers, hashing on the thread pool and a worker thread; prints the same whatever the timing.
// Usage: timers.js TICKS
'use strict';
const { Worker, isMainThread, parentPort } = require('worker_threads');
const crypto = require('crypto');

if (!isMainThread) {
	let x = 1;
	parentPort.on('message', (n) => {
		for (let i = 0; i < 20000; i++)
			x = (x * 16807 + n) % 2147483647;
		parentPort.postMessage([n, x]);
	});
} else {
	const ticks = Number(process.argv[2]);
	const worker = new Worker(__filename);
	let n = 0, key = 'start';

	worker.on('message', ([i, x]) => {
		console.log(`worker ${i} ${x}`);
		if (i === ticks / 10) {
			console.log(`end ${key}`);
			worker.terminate();
		}
	});
	const tick = () => {
		n++;
		crypto.pbkdf2(key, 'salt', 500, 16, 'sha256', (err, derived) => {
			if (err)
				throw err;
			key = derived.toString('hex');
			if (n % 10 === 0) {
				console.log(`tick ${n} ${key}`);
			}
			if (n < ticks)
				setTimeout(tick, 3);
			else
				for (let i = 1; i <= ticks / 10; i++)
					worker.postMessage(i);
		});
	};
	setTimeout(tick, 3);
}
