//! Prints the OpenAPI document of the API.

fn main() {
    print!("{}", task_processor_http::document());
}
