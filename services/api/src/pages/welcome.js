// The page of a server without its dashboard: first administrator, signing in, a token for the command line.

const $ = (id) => document.getElementById(id);
const states = ["loading", "no-link", "setup", "sign-in", "signed-in"];

function show(state) {
  for (const id of states) $(id).hidden = id !== state;
  $(state).querySelector("input")?.focus();
}

function alert(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

// Answers with the body; throws what the server's problem (RFC 9457) says.
async function call(method, path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  const init = { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" };
  const response = await fetch(path, init).catch(() => {
    throw new Error("The server does not answer. Is it running?");
  });
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (response.ok) return answer;
  const details = answer?.errors?.map((error) => error.detail).join("; ");
  const error = new Error(details || answer?.detail || `The server answered ${response.status}.`);
  error.status = response.status;
  throw error;
}

function onSubmit(form, send) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    alert("");
    try {
      await send(Object.fromEntries(new FormData(form)));
    } catch (error) {
      alert(error.message);
    } finally {
      button.disabled = false;
    }
  });
}

function welcome(user) {
  $("who").textContent = user.name;
  show("signed-in");
}

async function start() {
  // The link's secret leaves the address bar, and with it the history, at once.
  const token = location.hash.slice(1);
  if (token) history.replaceState(null, "", location.pathname);
  const { set_up: setUp } = await call("GET", "/api/v1/setup");
  if (!setUp && !token) return show("no-link");
  if (!setUp) {
    onSubmit($("setup"), async (account) => welcome(await call("POST", "/api/v1/setup", { ...account, token })));
    return show("setup");
  }
  try {
    welcome(await call("GET", "/api/v1/users/me"));
  } catch (error) {
    if (error.status !== 401) throw error;
    show("sign-in");
    if (token) alert("This server has its administrator: set-up links work no more.");
  }
}

onSubmit($("sign-in"), async (account) => {
  await call("POST", "/api/v1/sessions", account);
  $("sign-in").reset();
  welcome(await call("GET", "/api/v1/users/me"));
});

onSubmit($("token"), async ({ name, days }) => {
  const { secret } = await call("POST", "/api/v1/tokens", { name, expires_in_days: Number(days) });
  $("secret").textContent = secret;
  $("commands").textContent = `berth login ${location.origin}\nberth up https://github.com/you/project`;
  $("made").hidden = false;
});

$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("secret").textContent);
  $("copy").textContent = "Copied";
});

$("sign-out").addEventListener("click", async () => {
  try {
    await call("DELETE", "/api/v1/sessions/current");
  } catch (error) {
    return alert(error.message);
  }
  $("secret").textContent = "";
  $("made").hidden = true;
  show("sign-in");
});

start().catch((error) => {
  $("loading").hidden = true;
  alert(error.message);
});
