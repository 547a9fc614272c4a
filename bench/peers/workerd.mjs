export default {
  async fetch() {
    return Response.json({ ok: 'echo' });
  },
};
