import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.LinkedHashMap;
import java.util.Map;

/** The common test handler: echoes; {"fail": true} throws; {"sleep_ms": n} sleeps. */
public class Handler implements RequestHandler<Map<String, Object>, Map<String, Object>> {
  public static class TestFailure extends RuntimeException {
    TestFailure() {
      super("failed as asked");
    }
  }

  @Override
  public Map<String, Object> handleRequest(Map<String, Object> event, Context context) {
    context.getLogger().log("event for " + context.getAwsRequestId() + "\n");
    Object pause = event.get("sleep_ms");
    if (pause instanceof Number) {
      try {
        Thread.sleep(((Number) pause).longValue());
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
    if (Boolean.TRUE.equals(event.get("fail"))) throw new TestFailure();
    Map<String, Object> answer = new LinkedHashMap<>();
    answer.put("echo", event);
    answer.put("request_id", context.getAwsRequestId());
    answer.put("function", context.getFunctionName());
    return answer;
  }
}
