// Keeps all files of the kit, so that the page works without a network after the first visit. What the server has goes first.

const CONTENTS = "contents.json";

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const listed = await (await fetch(CONTENTS, { cache: "no-store" })).json();
      const cache = await caches.open("tfdistill-kit");
      await cache.addAll(["./", CONTENTS, ...Object.keys(listed.files)].map((path) => new Request(path, { cache: "no-store" })));
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || new URL(event.request.url).origin !== self.location.origin) return;
  event.respondWith(
    (async () => {
      try {
        const answer = await fetch(event.request);
        if (answer.ok) {
          const copy = answer.clone();
          event.waitUntil(caches.open("tfdistill-kit").then((cache) => cache.put(event.request, copy)));
        }
        return answer;
      } catch (error) {
        const kept = await caches.match(event.request, { ignoreSearch: true });
        if (kept) return kept;
        throw error;
      }
    })(),
  );
});
