//! What stands before the routes: whatever goes wrong behind it becomes a problem, and a service that stops says on every
//! answer that its connection closes.

use std::collections::HashMap;
use std::fmt::Write;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use poem::endpoint::BoxEndpoint;
use poem::error::MethodNotAllowedError;
use poem::http::{HeaderValue, Method, StatusCode, Version, header};

use poem::{Endpoint, IntoEndpoint, PathPattern, Request, Response};
use poem_openapi::OpenApi;

use crate::document;
use crate::guard::shape;
use crate::health::Stopping;
use crate::problem::Problem;
use crate::rate::Standing;

/// A route, as others are told of it.
struct Known {
    /// Its path, as the document has it.
    path: PathPattern,
    /// Its methods, as `Allow` lists them.
    allow: HeaderValue,
}

/// The outermost endpoint. Its answers name their route as the document does, in a [`PathPattern`].
pub(crate) struct Front {
    routes: BoxEndpoint<'static, Response>,
    /// What is known of every route, by its pattern in the router.
    known: HashMap<String, Known>,
    stopping: Stopping,
}

impl Front {
    pub(crate) fn new(routes: impl OpenApi + Clone + 'static, stopping: Stopping) -> Self {
        Self {
            stopping,
            known: known(routes.clone()),
            routes: document::service(routes).into_endpoint(),
        }
    }

    fn refuse(&self, error: poem::Error, method: &Method, path: &str) -> Response {
        let known = error.data::<PathPattern>();
        let known = known.and_then(|pattern| self.known.get(&*pattern.0));
        let allow = known
            .filter(|_| error.is::<MethodNotAllowedError>())
            .map(|known| known.allow.clone());
        let standing = error.data::<Standing>().cloned();
        let mut response = if allow.is_some() && method == Method::OPTIONS {
            StatusCode::NO_CONTENT.into()
        } else {
            Problem::from(error).respond(path)
        };
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        if let Some(standing) = standing {
            standing.tell(response.headers_mut());
        }
        if let Some(known) = known {
            response.set_data(known.path.clone());
        }
        response
    }
}

impl Endpoint for Front {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let uri = request.uri().clone();
        let method = request.method().clone();
        let version = request.version();
        if method == Method::HEAD {
            // hyper leaves the body away and keeps its length.
            request.set_method(Method::GET);
        }
        // A panic ends the request, not the connection; nothing that it may have left half done is shared.
        let answered = AssertUnwindSafe(self.routes.call(request))
            .catch_unwind()
            .await;
        let mut response = match answered {
            Ok(Ok(mut response)) => {
                if let Some(pattern) = response.extensions_mut().get_mut::<PathPattern>()
                    && let Some(known) = self.known.get(&*pattern.0)
                {
                    *pattern = known.path.clone();
                }
                response
            }
            Ok(Err(error)) => self.refuse(error, &method, uri.path()),
            Err(_) => {
                // The panic hook has told what and where.
                tracing::error!(event = "http.handler_panicked", %method, path = uri.path(), "a handler panicked");
                Problem::internal().respond(uri.path())
            }
        };
        // In HTTP/2 the connection says it by a frame of its own, when the time has come.
        if self.stopping.is_set() && version <= Version::HTTP_11 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(response)
    }
}

fn known<T: OpenApi>(routes: T) -> HashMap<String, Known> {
    let paths = T::meta().into_iter().flat_map(|api| api.paths);
    let documented: HashMap<String, Arc<str>> = paths
        .map(|path| (shape(&path.path), path.path.into()))
        .collect();
    let mut table = HashMap::new();
    routes.add_routes(&mut table);
    table
        .into_iter()
        .filter_map(|(pattern, endpoints)| {
            let mut methods: Vec<Method> = endpoints.into_keys().collect();
            if methods.contains(&Method::GET) {
                methods.push(Method::HEAD);
            }
            methods.push(Method::OPTIONS);
            methods.sort_unstable_by(|left, right| left.as_str().cmp(right.as_str()));
            let mut list = String::new();
            for method in methods {
                let separator = if list.is_empty() { "" } else { ", " };
                // Writing into a String cannot fail.
                let _ = write!(list, "{separator}{method}");
            }
            let known = Known {
                path: PathPattern(documented.get(&shape(&pattern))?.clone()),
                // Names of methods are valid in a header.
                allow: HeaderValue::try_from(list).ok()?,
            };
            Some((pattern, known))
        })
        .collect()
}
