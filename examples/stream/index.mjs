// Streams its answer: one word at a time, each reaching the caller as it is written.
import { setTimeout as sleep } from 'node:timers/promises';

export const handler = awslambda.streamifyResponse(async (event, stream) => {
  stream.setContentType('text/plain');
  const words = event.words ?? ['hello', 'from', 'a', 'stream'];
  for (const word of words) {
    stream.write(word + '\n');
    await sleep(event.pause_ms ?? 100);
  }
  stream.end();
});
