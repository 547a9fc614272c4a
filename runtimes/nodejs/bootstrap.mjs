// Entry for whoever starts the ES module; bootstrap.cjs is the same thing and starts faster: Node has no module loader to set up.
import { createRequire } from 'node:module';

createRequire(import.meta.url)('./bootstrap.cjs'); // `import` of a CommonJS file would first compile the parser for its exports
