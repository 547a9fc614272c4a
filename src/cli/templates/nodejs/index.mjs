// Answers a greeting, to a plain event {"name": ...} as well as to an HTTP request.
export const handler = async (event, context) => {
  const name = event.name ?? event.queryStringParameters?.name ?? 'world';
  console.log('greeting %s, %d ms left', name, context.getRemainingTimeInMillis());
  const answer = { message: `Hello, ${name}!`, function: context.functionName, requestId: context.awsRequestId };
  if (event.requestContext) {
    // called through a function URL or an HTTP API
    return { statusCode: 200, headers: { 'content-type': 'application/json' }, body: JSON.stringify(answer) };
  }
  return answer;
};
