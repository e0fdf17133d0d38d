# Varnish with what aiproxy's http mode does for these requests: one answer per Authorization (by default it would not store them).
vcl 4.1;
backend bench {
  .host = "127.0.0.1";
  .port = "@UPSTREAM@";
}
sub vcl_recv {
  set req.url = regsub(req.url, "^/openai/", "/");
  return (hash);
}
sub vcl_hash {
  hash_data(req.http.Authorization);
}
