// The common test handler: echoes; {"fail": true} fails; {"sleep_ms": n} sleeps; {"stream": [..]} streams.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type request struct {
	Fail    bool     `json:"fail"`
	SleepMs int      `json:"sleep_ms"`
	Stream  []string `json:"stream"`
}

// TestFailure gives the error its type name.
type TestFailure struct{}

func (*TestFailure) Error() string { return "failed as asked" }

type answer struct {
	Echo      json.RawMessage `json:"echo"`
	RequestID string          `json:"request_id"`
	Function  string          `json:"function"`
}

func stream(r request) io.Reader {
	reader, writer := io.Pipe()
	go func() {
		for _, part := range r.Stream {
			_, _ = writer.Write([]byte(part))
			time.Sleep(time.Duration(r.SleepMs) * time.Millisecond)
		}
		if r.Fail {
			_ = writer.CloseWithError(&TestFailure{})
			return
		}
		_ = writer.Close()
	}()
	return reader
}

func handle(ctx context.Context, event json.RawMessage) (any, error) {
	var r request
	_ = json.Unmarshal(event, &r)
	call, _ := lambdacontext.FromContext(ctx)
	log.Printf("event for %s", call.AwsRequestID)
	if r.Stream != nil {
		return stream(r), nil
	}
	time.Sleep(time.Duration(r.SleepMs) * time.Millisecond)
	if r.Fail {
		return nil, &TestFailure{}
	}
	return answer{Echo: event, RequestID: call.AwsRequestID, Function: lambdacontext.FunctionName}, nil
}

func main() {
	lambda.Start(handle)
}
