//! Which address is which page.

use std::sync::Arc;

use axum::extract::{Form, Path, Query, RawQuery, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use kiln_auth::Caller;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::access::{Doors, Refused};
use crate::answer::{self, Failure};
use crate::calls::Calls;
use crate::live::{Subject, stream};
use crate::pages::{self, Guest};
use crate::site::Site;
use crate::{api, assets, markup};

/// Largest form, in bytes.
const MAX_FORM: usize = 64 << 10;

pub(crate) fn router(doors: Doors, calls: Calls, stopping: CancellationToken) -> Router {
    let site = Site::new(doors, calls, stopping, Arc::new(pages::build::patches));
    let inside = Router::new()
        .route("/", get(async || Redirect::temporary("/builds")))
        .route("/builds", get(pages::builds))
        .route("/live/builds", get(live_builds))
        .route("/builds/{id}", get(pages::build::page))
        .route("/builds/{id}/tests", get(pages::tested::page))
        .route("/builds/{id}/steps/{step}", get(pages::step_page))
        .route("/builds/{id}/steps/{step}/live", get(pages::follow_step))
        .route("/builds/{id}/steps/{step}/inputs", get(pages::step_files))
        .route("/builds/{id}/steps/{step}/inputs/", get(pages::step_files))
        .route("/builds/{id}/steps/{step}/inputs/{*path}", get(pages::step_files))
        .route("/builds/{id}/steps/{step}/outputs", get(pages::step_files))
        .route("/builds/{id}/steps/{step}/outputs/", get(pages::step_files))
        .route("/builds/{id}/steps/{step}/outputs/{*path}", get(pages::step_files))
        .route("/compare", get(pages::compare))
        .route("/farm", get(pages::farm))
        .route("/live/farm", get(pages::live_farm))
        .route("/artifacts", get(pages::artifacts))
        .route("/artifacts/{id}", get(pages::artifact_page))
        .route("/artifacts/{id}/layers", get(pages::layers::page))
        .route("/artifacts/{id}/layers/{number}", get(pages::layers::files))
        .route("/artifacts/{id}/{document}", get(pages::document))
        .route("/artifacts/{id}/statements/{name}", get(pages::statement))
        .route("/artifacts/{id}/files", get(pages::artifact_files))
        .route("/artifacts/{id}/files/", get(pages::artifact_files))
        .route("/artifacts/{id}/files/{*path}", get(pages::artifact_files))
        .nest(API, scripts())
        .route("/builds/{id}/cancel", post(pages::build::cancel))
        .route("/builds/{id}/live", get(pages::build::follow))
        .route("/builds/{id}/steps/{step}/log", get(pages::build::log_page))
        .route("/builds/{id}/steps/{step}/log/{stream}", get(pages::build::download_log))
        .route("/invocations", get(pages::invocation::list))
        .route("/live/invocations", get(pages::invocation::follow_list))
        .route("/invocations/{id}", get(pages::invocation::page))
        .route("/invocations/{id}/actions/{number}", get(pages::invocation::action_page))
        .route("/invocations/{id}/live", get(pages::invocation::follow))
        .route_layer(middleware::from_fn_with_state(site.clone(), known));
    Router::new()
        .merge(inside)
        .route("/login", get(login).post(log_in))
        .route("/open/{code}", get(async |Path(code): Path<String>| pages::open(&code)))
        .route("/open", post(open))
        .route("/logout", post(log_out))
        .route("/assets/{version}/{name}", get(async |Path((_, name)): Path<(String, String)>| assets::answer(&name)))
        .fallback(async || Failure::not_found("There is no such page."))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn_with_state(site.clone(), admitted))
        .with_state(site)
}

/// Where scripts ask.
const API: &str = "/api/v1";

fn scripts() -> Router<Site> {
    Router::new()
        .route("/openapi.json", get(api::description))
        .route("/builds", get(api::builds))
        .route("/builds/{id}", get(api::build))
        .route("/builds/{id}/steps/{step}", get(api::one_step))
        .route("/builds/{id}/steps/{step}/log", get(api::log))
        .route("/builds/{id}/tests", get(api::tests))
        .route("/farm", get(api::farm))
        .route("/cache", get(api::cache))
        .route("/artifacts", get(api::artifacts))
        .route("/artifacts/{id}", get(api::one_artifact))
        .route("/artifacts/{id}/layers", get(api::layers))
}

/// A failure as scripts read it.
fn for_scripts(answer: Response) -> Response {
    let Some(failure) = answer.extensions().get::<Arc<Failure>>().cloned() else {
        if !answer.status().is_client_error() {
            return answer;
        }
        // The framework's own, such as of a number that is none.
        let status = answer.status();
        return json_failure(status, status.canonical_reason().unwrap_or("bad request"));
    };
    json_failure(failure.code, &failure.message)
}

fn json_failure(status: StatusCode, message: &str) -> Response {
    let body = serde_json::json!({ "error": { "status": status.as_u16(), "message": message } });
    (status, Json(body)).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let page = pages::failure(&self);
        let mut answer = (self.code, page).into_response();
        answer.extensions_mut().insert(Arc::new(self));
        answer
    }
}

/// What changes in the list of builds.
async fn live_builds(
    State(site): State<Site>,
    guest: Guest,
    RawQuery(query): RawQuery,
    Query(filter): Query<pages::Filter>,
) -> Result<Response, Failure> {
    let subject =
        Subject { tenant: guest.identity.tenant.clone(), what: format!("builds?{}", query.unwrap_or_default()) };
    // Whoever follows may list builds, whether or not somebody else looks already.
    guest.client.builds().list(filter.request(1)?).await?;
    let looking = guest.clone();
    let shown = site.feeds.follow(subject, move || pages::changed_builds(looking.clone(), filter.clone())).await?;
    Ok(stream(shown, site.end(&guest.identity)))
}

/// In front of everything: where a request may come from, and the headers that every answer has.
async fn admitted(State(site): State<Site>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let is_script = parts.uri.path().starts_with("/api/");
    let mut answer = match site.doors.admit(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(refused) => refusal(refused, &parts.uri.to_string()),
    };
    if is_script {
        answer = for_scripts(answer);
    }
    answer::protect(answer.headers_mut());
    answer
}

/// In front of what only known visitors see.
async fn known(State(site): State<Site>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match site.doors.identify(&parts).await {
        Ok(visitor) => {
            parts.extensions.insert(Guest::new(&visitor, &site.calls));
            next.run(Request::from_parts(parts, body)).await
        }
        Err(_)
            if parts.method == Method::GET
                && !parts.headers.contains_key(header::AUTHORIZATION)
                && !parts.uri.path().starts_with(API) =>
        {
            let to = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            Redirect::to(&format!("/login?to={}", markup::encoded(to))).into_response()
        }
        Err(refused) => refusal(refused, ""),
    }
}

fn refusal(refused: Refused, uri: &str) -> Response {
    let failure = match refused {
        Refused::Host => Failure::new(
            StatusCode::MISDIRECTED_REQUEST,
            "This farm does not know itself by that name. Use its address, or start the coordinator with `--web-url`.",
        ),
        Refused::Origin => {
            tracing::warn!(uri, "refused a form that is not from a page of this farm");
            Failure::new(
                StatusCode::FORBIDDEN,
                "That was not sent by a page of this farm. Open the page again and repeat it.",
            )
        }
        Refused::Unknown(status) => Failure::new(StatusCode::UNAUTHORIZED, status.message()),
    };
    failure.into_response()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct To {
    to: String,
}

/// A place on this site; the first page if it is none.
fn local(to: &str) -> &str {
    let is_local = to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\r', '\n', '\t']);
    if is_local { to } else { "/" }
}

async fn login(State(site): State<Site>, Query(To { to }): Query<To>) -> Response {
    if site.doors.asks() { pages::login(local(&to), None).into_response() } else { Redirect::to("/").into_response() }
}

#[derive(Debug, Deserialize)]
struct Login {
    token: String,
    #[serde(default)]
    to: String,
}

async fn log_in(
    State(site): State<Site>,
    caller: Option<Extension<Caller>>,
    Form(Login { token, to }): Form<Login>,
) -> Response {
    let caller = caller.map(|Extension(caller)| caller).unwrap_or_default();
    match site.doors.log_in(&caller, &token).await {
        Ok(cookie) => with_cookie(&cookie, Redirect::to(local(&to))),
        Err(status) if status.code() == Code::Unauthenticated => {
            let page = pages::login(local(&to), Some(&format!("That token was refused: {}.", status.message())));
            (StatusCode::UNAUTHORIZED, page).into_response()
        }
        Err(status) => Failure::from(status).into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct Opened {
    code: String,
}

async fn open(State(site): State<Site>, Form(Opened { code }): Form<Opened>) -> Response {
    match site.doors.open(&code).await {
        Some(cookie) => with_cookie(&cookie, Redirect::to("/")),
        None => Failure::new(
            StatusCode::GONE,
            "This link was used before, or is older than a minute. Run `kiln web` again for a new one.",
        )
        .into_response(),
    }
}

async fn log_out(State(site): State<Site>, headers: axum::http::HeaderMap) -> Response {
    with_cookie(&site.doors.log_out(&headers).await, Redirect::to("/login"))
}

fn with_cookie(cookie: &str, answer: impl IntoResponse) -> Response {
    let mut answer = answer.into_response();
    if let Ok(value) = HeaderValue::from_str(cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_sent_to_no_other_site() {
        for other in ["//evil.example", "https://evil.example", "/\\evil.example", "", "evil", "/\t/evil.example"] {
            assert_eq!(local(other), "/", "for `{other}`");
        }
        assert_eq!(local("/builds?q=a"), "/builds?q=a");
    }
}
