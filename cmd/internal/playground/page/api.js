// Calls of the server that served the page.

// Failure is a call that was not done. Code has words in every language.
export class Failure extends Error {
	constructor(code, detail = '') {
		super(`${code} ${detail}`);
		this.code = code;
		this.detail = detail;
	}
}

// Returns the answer to a call, as an object. Throws a Failure.
export async function post(name, body = {}) {
	let response, answer;
	try {
		response = await fetch(`api/${name}`, {
			method: 'POST',
			headers: { 'Content-Type': 'application/json' },
			body: JSON.stringify(body),
		});
		answer = await response.json();
	} catch {
		throw new Failure('gone');
	}
	if (!response.ok) throw new Failure(answer.error, answer.detail);
	return answer;
}
