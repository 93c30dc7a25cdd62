//! One way out per run: plain `wasi:http`, plain `wasi:sockets`, or `govrun:host/net` in pieces. What came of it goes to
//! stdout as one line: `ok …` or `error …`.

mod govern;
mod http;
mod sockets;

use std::env;

wit_bindgen::generate!({
    path: ["../../wit", "wit"],
    world: "govrun:caller/caller",
    generate_all,
});

const USAGE: &str = "usage: caller get URL | post URL BYTES | parts METHOD SCHEME AUTHORITY PATH | header URL NAME VALUE \
                     | lengths URL | fields COUNT | impatient URL | many URL COUNT | leave URL | empties URL COUNT \
                     | tcp ADDRESS TEXT | keep ADDRESS | tcp-bind ADDRESS | listen | empty-writes ADDRESS COUNT \
                     | udp-send ADDRESS TEXT | udp-connect ADDRESS TEXT | udp-switch ADDRESS ADDRESS | udp-hear ADDRESS \
                     | udp-bind ADDRESS | lookup NAME | lookups COUNT SUFFIX | dial NAME PORT | fetch URL FOLLOW \
                     | pieces URL COUNT BYTES | lying URL";

type Told = Result<String, String>;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(told) => println!("ok {told}"),
        Err(told) => println!("error {told}"),
    }
}

fn run(words: &[&str]) -> Told {
    match words {
        ["get", url] => http::get(url),
        ["post", url, bytes] => http::post(url, number(bytes)?),
        ["parts", method, scheme, authority, path] => http::parts(method, scheme, authority, path),
        ["header", url, name, value] => http::header(url, name, value),
        ["lengths", url] => http::lengths(url),
        ["fields", count] => http::fields(number(count)?),
        ["impatient", url] => http::impatient(url),
        ["many", url, count] => http::many(url, number(count)?),
        ["leave", url] => http::leave(url),
        ["empties", url, count] => http::empties(url, number(count)?),
        ["tcp", address, text] => sockets::tcp(address, text),
        ["keep", address] => sockets::keep(address),
        ["tcp-bind", address] => sockets::tcp_bind(address),
        ["listen"] => sockets::listen(),
        ["empty-writes", address, count] => sockets::empty_writes(address, number(count)?),
        ["udp-send", address, text] => sockets::udp_send(address, text),
        ["udp-connect", address, text] => sockets::udp_connect(address, text),
        ["udp-switch", first, second] => sockets::udp_switch(first, second),
        ["udp-hear", address] => sockets::udp_hear(address),
        ["udp-bind", address] => sockets::udp_bind(address),
        ["lookup", name] => sockets::lookup(name).map(|all| all.join(" ")),
        ["lookups", count, suffix] => sockets::lookups(number(count)?, suffix),
        ["dial", name, port] => sockets::dial(name, port),
        ["fetch", url, follow] => govern::fetch(url, number(follow)?),
        ["pieces", url, count, bytes] => govern::pieces(url, number(count)?, number(bytes)?),
        ["lying", url] => govern::lying(url),
        _ => Err(USAGE.to_owned()),
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}
