//! The states of a view besides its data: loading, failed, empty.

use crate::client::Load;
use leptos::prelude::*;

#[component]
pub fn Loading() -> impl IntoView {
    view! { <p class="state loading" role="status">"Loading…"</p> }
}

#[component]
pub fn Failed(message: String) -> impl IntoView {
    view! {
        <div class="state failed" role="alert">
            <strong>"This did not work."</strong>
            <p>{message}</p>
        </div>
    }
}

/// How to get data in: shown wherever there is none at all.
#[component]
pub fn SendData() -> impl IntoView {
    let host = window().location().hostname().unwrap_or_else(|_| "localhost".to_owned());
    view! {
        <section class="state">
            <h2>"No data in this time range yet"</h2>
            <p>"Point any OpenTelemetry exporter here, or widen the time range above."</p>
            <pre>
                {format!(
                    "# gRPC\nexport OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:4317\n\n# HTTP (protobuf or JSON)\nexport OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:4318\nexport OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n\n# or watch the demo shop\ntrefoil demo",
                )}
            </pre>
        </section>
    }
}

/// Shows data when they are there, else what is known of them.
pub fn show<T, V>(
    data: RwSignal<Load<T>>,
    ready: impl Fn(T) -> V + Send + Sync + 'static,
) -> impl IntoView
where
    T: Clone + Send + Sync + 'static,
    V: IntoView + 'static,
{
    move || match data.get() {
        Load::Loading => view! { <Loading/> }.into_any(),
        Load::Failed(message) => view! { <Failed message=message/> }.into_any(),
        Load::Ready(data) => ready(data).into_any(),
    }
}
