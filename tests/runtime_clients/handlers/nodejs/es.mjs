export const handler = async () => 'es module';
