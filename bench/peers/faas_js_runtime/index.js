// The benchmark's function for faas-js-runtime.
const handle = async () => ({ ok: 'echo' });
module.exports = { handle };
