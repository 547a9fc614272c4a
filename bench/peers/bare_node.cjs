// Bare Node HTTP: what its own server costs without any platform. Usage: node bare_node.cjs PORT
'use strict';
const answer = JSON.stringify({ ok: 'echo' });
require('http').createServer((request, response) => {
  request.resume();
  request.on('end', () => response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': answer.length }).end(answer));
}).listen(Number(process.argv[2]), '127.0.0.1');
