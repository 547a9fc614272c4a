// Says on its output what it hears: the events of its life and every telemetry record.
use lambda_extension::{service_fn, Error, Extension, LambdaEvent, LambdaTelemetry, LogBuffering, NextEvent, SharedService};

async fn on_event(event: LambdaEvent) -> Result<(), Error> {
    match event.next {
        NextEvent::Invoke(invoke) => println!("rust INVOKE {} {}", invoke.request_id, invoke.invoked_function_arn),
        NextEvent::Shutdown(shutdown) => println!("rust SHUTDOWN {}", shutdown.shutdown_reason),
    }
    Ok(())
}

async fn on_telemetry(records: Vec<LambdaTelemetry>) -> Result<(), Error> {
    for record in records {
        println!("rust TELEMETRY {:?}", record.record);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    Extension::new()
        .with_events_processor(service_fn(on_event))
        .with_telemetry_processor(SharedService::new(service_fn(on_telemetry)))
        .with_telemetry_types(&["platform", "function"])
        .with_telemetry_buffering(LogBuffering { timeout_ms: 25, max_bytes: 262_144, max_items: 1_000 })
        .run()
        .await
}
