"use strict";
// Without this script the page shows everything as of one moment, and its
// buttons load it anew. With it, ages tick, and buttons change their own row.

// span is formatSpan of format.go.
function span(seconds) {
	const s = Math.floor(seconds);
	if (s < 60) return s + "s";
	if (s < 3600) return Math.floor(s / 60) + "m " + s % 60 + "s";
	if (s < 86400) return Math.floor(s / 3600) + "h " + Math.floor(s / 60) % 60 + "m";
	return Math.floor(s / 86400) + "d " + Math.floor(s / 3600) % 24 + "h";
}

// tick moves the ages on, by a clock that nobody sets. It reports whether the
// time of a page has run out.
function tick() {
	const now = performance.now() / 1000;
	let over = false;
	for (const el of document.querySelectorAll("[data-age], [data-left]")) {
		el.dataset.since ??= now;
		const passed = now - el.dataset.since;
		if (el.dataset.age) {
			el.textContent = span(+el.dataset.age + passed);
		} else {
			const left = el.dataset.left - passed;
			el.textContent = left < 0 ? span(-left) + " over" : span(left);
			over ||= left < 0 && el.dataset.left >= 0;
		}
	}
	return over;
}

// load gets the page anew. XMLHttpRequest parses it without running anything,
// which Trusted Types let pass.
function load(method, url, body) {
	return new Promise((resolve, reject) => {
		const request = new XMLHttpRequest();
		request.open(method, url);
		request.responseType = "document";
		request.setRequestHeader("Accept", "text/html");
		request.onload = () => request.response?.getElementById("main") ?
			resolve(request.response) : reject(new Error("the server answered " + request.status));
		request.onerror = () => reject(new Error("the server cannot be reached"));
		request.send(body);
	});
}

// merge takes over what has changed, and leaves alone where the focus is and the
// order of the rows, so that nothing jumps away under a hand.
function merge(fresh) {
	for (const old of document.querySelectorAll("[data-live]")) {
		const el = fresh.getElementById(old.id);
		if (el && !old.contains(document.activeElement)) old.replaceChildren(...el.childNodes);
	}
	for (const row of document.querySelectorAll("tbody tr[id]")) {
		const renewed = fresh.getElementById(row.id);
		if (!renewed || renewed.className === "gone") {
			retire(row);
			continue;
		}
		row.className = renewed.className;
		const cells = [...renewed.children];
		[...row.children].forEach((cell, i) => {
			if (!cell.matches(".k-do") && !cell.contains(document.activeElement)) cell.replaceWith(cells[i]);
		});
	}
	const detail = document.querySelector(".detail");
	if (detail && !fresh.querySelector(".detail")) retire(detail);
	tick();
}

// retire stops the clocks of what is not to be seen any more, where it was.
function retire(el) {
	el.classList.add("gone");
	for (const clock of el.querySelectorAll("[data-age], [data-left]")) {
		delete clock.dataset.age;
		delete clock.dataset.left;
	}
	const state = el.querySelector("td .state");
	if (state) {
		state.className = "state";
		state.textContent = "not listed";
	}
}

let refreshed = -10000, pending = 0; // at once, if a time is over soon

async function refresh() {
	if (pending || document.hidden || performance.now() - refreshed < 10000) return;
	refreshed = performance.now();
	try {
		merge(await load("GET", location.href));
	} catch {
		// The next one may succeed; until then the page ticks on.
	}
}

document.addEventListener("submit", async (event) => {
	const form = event.target;
	if (!form.matches("[data-act]")) return;
	event.preventDefault();
	if (form.ariaBusy === "true") return;
	form.ariaBusy = "true";
	pending++;
	const output = form.querySelector("output");
	output.className = "outcome";
	output.textContent = "…";
	try {
		const body = new URLSearchParams(new FormData(form, event.submitter));
		const fresh = await load("POST", form.action, body);
		const outcome = fresh.querySelector("output.ok, output.failed");
		merge(fresh);
		output.className = outcome.className;
		output.textContent = outcome.textContent;
	} catch (err) {
		output.className = "outcome failed";
		output.textContent = "Failed: " + err.message + ".";
	}
	refreshed = performance.now();
	pending--;
	form.ariaBusy = "false";
});

tick();
setInterval(() => tick() && refresh(), 1000);
