// The benchmark's Java function: answers a constant. Its main() does nothing: a bare JVM, for comparison.
import java.util.Map;

public class Echo {
  public Map<String, String> handler(Map<String, Object> event) {
    return Map.of("ok", "echo");
  }

  public static void main(String[] arguments) {}
}
