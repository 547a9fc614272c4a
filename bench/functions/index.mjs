export const handler = async () => ({ ok: 'echo' });
