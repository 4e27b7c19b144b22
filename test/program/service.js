// An HTTP server with timers and two worker threads. Answers with what it has got to: its id, what
// was put, ticks of its timers, and for each worker how many steps it made, and to what value.
// Usage: service.js PORT
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');
const http = require('http');

if (!isMainThread) {
	let n = 0, x = workerData;
	setInterval(() => {
		for (let i = 0; i < 1000; i++)
			x = (x * 16807 + n++) % 2147483647;
		parentPort.postMessage([n, x]);
	}, 2);
} else {
	const id = crypto.randomBytes(16).toString('hex'), put = [], ticks = { fast: 0, slow: 0 };
	const workers = [1, 2].map((first) => {
		const at = { first, n: 0, x: first };
		new Worker(__filename, { workerData: first }).on('message', ([n, x]) => {
			at.n = n;
			at.x = x;
		});
		return at;
	});

	setInterval(() => ticks.fast++, 1);
	const slow = () => {
		ticks.slow++;
		setTimeout(slow, 20);
	};
	slow();
	http.createServer((request, response) => {
		let body = '';
		request.on('data', (more) => body += more);
		request.on('end', () => {
			if (body)
				put.push(body);
			response.setHeader('content-type', 'application/json');
			response.end(JSON.stringify({ id, put, ticks, workers }));
		});
	}).listen(Number(process.argv[2]), '127.0.0.1');
}
