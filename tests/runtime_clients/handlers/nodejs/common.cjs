const handler = async () => 'common'; module.exports = { handler };
