package main

import (
	"context"
	"log"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Name string `json:"name"`
}

type answer struct {
	Message   string `json:"message"`
	Function  string `json:"function"`
	RequestID string `json:"request_id"`
}

// handle answers a greeting to {"name": ...}.
func handle(ctx context.Context, e event) (answer, error) {
	if e.Name == "" {
		e.Name = "world"
	}
	log.Printf("greeting %s", e.Name)
	result := answer{Message: "Hello, " + e.Name + "!", Function: lambdacontext.FunctionName}
	if call, ok := lambdacontext.FromContext(ctx); ok {
		result.RequestID = call.AwsRequestID
	}
	return result, nil
}

func main() {
	lambda.Start(handle)
}
