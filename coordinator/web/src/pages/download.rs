//! Blobs as downloads: a browser keeps them and shows none.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use kiln_proto::bytestream::ReadRequest;
use kiln_proto::reapi;

use crate::answer::Failure;
use crate::blobs::Space;
use crate::calls::Client;

/// A blob, under a name that it is kept as.
pub(super) async fn download_blob(
    client: &Client,
    space: &Space,
    digest: &reapi::Digest,
    name: &str,
    kind: &'static str,
) -> Result<Response, Failure> {
    let request = ReadRequest { resource_name: space.name(digest), ..ReadRequest::default() };
    let pieces = client.bytes().read(request).await?.into_inner();
    let body = Body::from_stream(pieces.map_ok(|piece| bytes::Bytes::from(piece.data)));
    let mut answer = body.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(digest.size_bytes.max(0)));
    headers.insert(header::CONTENT_DISPOSITION, disposition(name));
    Ok(answer)
}

/// A name from outside as a header (RFC 6266): nothing in it ends the header, and it has no directories.
fn disposition(name: &str) -> HeaderValue {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+ ".contains(c) { c } else { '_' };
    let name: String = name.rsplit('/').next().unwrap_or_default().chars().map(plain).take(200).collect();
    HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_end_its_header() {
        let names = ["a.txt", "../../etc/passwd", "a\"; x=\"b\r\nSet-Cookie: c", "é<script>"];
        let headers = names.map(|name| disposition(name).to_str().unwrap().to_owned());
        assert_eq!(headers[0], "attachment; filename=\"a.txt\"");
        assert_eq!(headers[1], "attachment; filename=\"passwd\"");
        assert_eq!(headers[2], "attachment; filename=\"a__ x__b__Set-Cookie_ c\"");
        assert_eq!(headers[3], "attachment; filename=\"__script_\"");
    }
}
