const { createGate } = require('./wxgate.js')

App({
  // All pages share one client, so that they share one login.
  gate: createGate({ baseURL: 'https://api.example.com' })
})
