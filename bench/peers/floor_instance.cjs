// Instance of bench_floor in Node: JSON in, an asynchronous handler, JSON out, over the socket at descriptor 3.
'use strict';
const handler = async () => ({ ok: 'echo' });
const socket = new (require('net').Socket)({ fd: 3, readable: true, writable: true });
socket.on('data', async (frame) => {
  const length = frame.readUInt32LE(0);
  const answer = Buffer.from(JSON.stringify(await handler(JSON.parse(frame.toString('utf8', 8, 8 + length)))));
  const head = Buffer.alloc(8);
  head.writeUInt32LE(answer.length, 0);
  head.writeUInt32LE(frame.readUInt32LE(4), 4);
  socket.write(Buffer.concat([head, answer]));
});
