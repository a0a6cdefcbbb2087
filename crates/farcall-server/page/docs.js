// Fetches the document, with a token when the server asks for one, and shows it. The token is kept in this tab alone.
"use strict";

const form = document.getElementById("token");
let token = sessionStorage.getItem("farcall-token");

function show(description) {
  const ui = SwaggerUIBundle({
    spec: description,
    dom_id: "#reference",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
    // Nothing of this page is told to anybody else.
    validatorUrl: null,
    requestInterceptor(request) {
      if (token && !request.headers.Authorization && !request.headers["Farcall-Token"]) {
        request.headers["Farcall-Token"] = token;
      }
      return request;
    },
    onComplete() {
      if (token) ui.preauthorizeApiKey("farcall_token", token);
    },
  });
}

async function load() {
  const answer = await fetch("/openapi.json", { headers: token ? { "Farcall-Token": token } : {} });
  if (answer.status === 401) {
    if (token) document.getElementById("why").textContent = "This token is not one of server.tokens.";
    sessionStorage.removeItem("farcall-token");
    form.hidden = false;
    return;
  }
  if (!answer.ok) throw new Error(`the description cannot be had: ${answer.status}`);
  if (token) sessionStorage.setItem("farcall-token", token);
  form.hidden = true;
  show(await answer.json());
}

function tell(error) {
  document.getElementById("reference").textContent = String(error);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  token = document.getElementById("value").value.trim();
  load().catch(tell);
});
load().catch(tell);
