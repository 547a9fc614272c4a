// The benchmark's function for functions-framework.
exports.handler = (request, response) => response.json({ ok: 'echo' });
