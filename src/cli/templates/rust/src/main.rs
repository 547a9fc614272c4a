use lambda_runtime::{run, service_fn, Error, LambdaEvent};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Event {
    name: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    message: String,
    function: String,
    request_id: String,
}

/// Answers a greeting to {"name": ...}.
async fn handle(event: LambdaEvent<Event>) -> Result<Answer, Error> {
    let name = event.payload.name.unwrap_or_else(|| "world".into());
    println!("greeting {name}");
    Ok(Answer {
        message: format!("Hello, {name}!"),
        function: event.context.env_config.function_name.clone(),
        request_id: event.context.request_id,
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    run(service_fn(handle)).await
}
