const value = await Promise.resolve('module folder'); export const handler = async () => value;
