//! Prints a greeting as JSON.
use serde::Serialize;

#[derive(Serialize)]
struct Greeting<'a> {
    hello: &'a str,
    length: String,
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "world".into());
    let length = itoa::Buffer::new().format(name.len()).to_owned();
    match serde_json::to_string(&Greeting { hello: &name, length }) {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("greet: {error}");
            std::process::exit(1);
        }
    }
}
