// What to try: each fills the form of a call. Fields that are not named stay as they are.
import { madeUpToken } from './state.js';

const stranger = 'oSOMEBODY-ELSE_0000000000000';

// Token is 'live', 'none' or 'old'; headers take the site.
export const presets = [
	{ name: 'own' },
	{ name: 'guest', method: 'GET', token: 'none', headers: () => '' },
	{
		name: 'forge', method: 'GET', token: 'live',
		headers: () => `X-WX-OPENID: ${stranger}\nX-WX-UNIONID: ${stranger}`,
	},
	{
		name: 'spelling', method: 'GET', token: 'live',
		headers: () => `X_WX_OPENID: ${stranger}\nx-wx_openid: ${stranger}\nX.WX.OPENID: ${stranger}`,
	},
	{
		name: 'connection', method: 'GET', token: 'live',
		headers: () => 'Connection: close, X-Wx-Openid, X-Wx-Appid',
	},
	{
		name: 'twoTokens', method: 'GET', token: 'live',
		headers: () => `X-3rd-Session: ${madeUpToken()}`,
	},
	{ name: 'path', method: 'GET', token: 'none', path: () => '/healthz/../hello', headers: () => '' },
	{
		name: 'endpoint', method: 'GET', token: 'live',
		path: (site) => `${site.prefix}/hello`, headers: () => '',
	},
	{ name: 'old', method: 'GET', token: 'old', headers: () => '' },
	{
		name: 'session', method: 'GET', token: 'live',
		path: (site) => `${site.prefix}/session`, headers: () => '',
	},
];

