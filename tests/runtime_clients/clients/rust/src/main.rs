//! The common test handler: echoes; {"fail": true} fails; {"sleep_ms": n} sleeps; {"stream": [..]} streams.
use lambda_runtime::streaming::{channel, Body, Response};
use lambda_runtime::{run, service_fn, Error, FunctionResponse, LambdaEvent};
use serde_json::{json, Value};
use std::time::Duration;

#[derive(Debug)]
struct TestFailure;

impl std::fmt::Display for TestFailure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "failed as asked")
    }
}

impl std::error::Error for TestFailure {}

async fn handle(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    let (payload, context) = event.into_parts();
    println!("event for {}", context.request_id);
    let pause = Duration::from_millis(payload["sleep_ms"].as_u64().unwrap_or(0));
    let fail = payload["fail"].as_bool().unwrap_or(false);
    if let Some(parts) = payload["stream"].as_array().cloned() {
        let (mut sender, body) = channel();
        tokio::spawn(async move {
            for part in parts {
                let _ = sender.send_data(part.as_str().unwrap_or("").to_owned().into()).await;
                tokio::time::sleep(pause).await;
            }
            if fail {
                sender.abort();
            }
        });
        return Ok(FunctionResponse::StreamingResponse(Response::from(body)));
    }
    tokio::time::sleep(pause).await;
    if fail {
        return Err(Box::new(TestFailure));
    }
    let function = context.env_config.function_name.clone();
    Ok(FunctionResponse::BufferedResponse(json!({"echo": payload, "request_id": context.request_id, "function": function})))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}
