// SPDX-License-Identifier: Apache-2.0
// A real provider of OpenID Connect on this machine, with login and consent forms of its own.
//
//     node provider.mjs FOLDER REDIRECT_URI
//
// FOLDER holds node_modules. Says `ready PORT` when it listens. Tests tell it who there is (PUT /control/accounts), where to lead
// back to (PUT /control/redirect-uri), and to sign with other keys (POST /control/rotate). A password is the login's name twice; a one-time code is 123456.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, firstRedirectUri] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(join(folder, 'node_modules/oidc-provider/lib/index.js')));

let accounts = {};
let redirectUri = firstRedirectUri;
let provider;

function makeKeys() {
  const pairs = [
    generateKeyPairSync('rsa', { modulusLength: 2048 }),
    generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    generateKeyPairSync('ed25519'),
  ];
  return { keys: pairs.map(({ privateKey }) => ({ ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: randomUUID() })) };
}

function client(id, algorithm, method) {
  return {
    client_id: id,
    ...(method === 'none' ? {} : { client_secret: 'a secret: of + %20 signs' }),
    token_endpoint_auth_method: method,
    id_token_signed_response_alg: algorithm,
    redirect_uris: [redirectUri],
    response_types: ['code'],
    grant_types: ['authorization_code'],
  };
}

function makeProvider(issuer) {
  return new Provider(issuer, {
    clients: [
      client('basic', 'RS256', 'client_secret_basic'),
      client('pss', 'PS256', 'client_secret_basic'),
      client('public', 'ES256', 'none'),
      client('edwards', 'EdDSA', 'none'),
    ],
    jwks: makeKeys(),
    cookies: { keys: ['for tests alone'] },
    claims: { openid: ['sub', 'acr', 'amr'], profile: ['name', 'preferred_username', 'groups'] },
    acrValues: ['one', 'two'],
    conformIdTokenClaims: false,
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    pkce: { required: () => true },
    ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: accounts[id]?.sub ?? id, ...accounts[id] }) }),
  });
}

function body(request) {
  return new Promise((resolve, reject) => {
    let text = '';
    request.on('data', (part) => { text += part; });
    request.on('end', () => resolve(text));
    request.on('error', reject);
  });
}

async function interact(request, response, action) {
  const { prompt, params, grantId, session } = await provider.interactionDetails(request, response);
  if (request.method === 'GET') {
    const fields = prompt.name === 'login' ? '<input name="login"><input name="password"><input name="code">' : '';
    response.setHeader('content-type', 'text/html');
    response.end(`<form method="post" action="${request.url}/${prompt.name}">${fields}<button>Go on</button></form>`);
    return;
  }
  const given = new URLSearchParams(await body(request));
  let result;
  if (action === 'no') {
    result = { error: 'access_denied', error_description: 'the person said no' };
  } else if (prompt.name === 'login') {
    const login = given.get('login');
    if (!(login in accounts) || given.get('password') !== login + login) {
      response.statusCode = 401;
      response.end('no');
      return;
    }
    const two = given.get('code') === '123456';
    result = { login: { accountId: login, acr: two ? 'two' : 'one', amr: two ? ['pwd', 'otp', 'mfa'] : ['pwd'] } };
  } else {
    const grant = grantId
      ? await provider.Grant.find(grantId)
      : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    result = { consent: { grantId: await grant.save() } };
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: prompt.name === 'consent' });
}

const server = createServer(async (request, response) => {
  try {
    const [, first, , action] = request.url.split('?')[0].split('/');
    if (request.url === '/control/accounts') {
      accounts = JSON.parse(await body(request));
      response.end();
    } else if (request.url === '/control/redirect-uri') {
      redirectUri = await body(request);
      provider = makeProvider(provider.issuer);
      response.end();
    } else if (request.url === '/control/rotate') {
      provider = makeProvider(provider.issuer);
      response.end();
    } else if (first === 'interaction') {
      await interact(request, response, action);
    } else {
      provider.callback()(request, response);
    }
  } catch (error) {
    console.error(error);
    response.statusCode = 500;
    response.end();
  }
});

// Ends with whoever started it.
process.stdin.on('end', () => process.exit()).resume();

server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  provider = makeProvider(`http://127.0.0.1:${port}`);
  console.log(`ready ${port}`);
});
