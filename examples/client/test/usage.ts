// Uses each call of the types once. The TypeScript compiler checks it; nothing runs it.
import { createGate, Gate, GateError } from '../wxgate'

const gate: Gate = createGate({ baseURL: 'https://api.example.com', appid: 'wx0123456789abcdef' })

export async function use (): Promise<string> {
  const res = await gate.request({ url: '/api/me', method: 'POST', data: { n: 1 } })
  const status: number = res.statusCode
  gate.request({ url: '/api/me', success: ({ data }) => data.openid, fail: err => err })
  const up = await gate.uploadFile({ url: '/p', filePath: 'f', name: 'n', onTask: t => t.abort() })
  const text: string = up.data
  await gate.downloadFile({ url: '/p' })
  const task = await gate.connectSocket({ url: '/socket' })
  task.send({ data: text })
  const left: number = (await gate.login()).expiresIn + (await gate.session()).expiresIn
  const { phoneNumber } = await gate.phone({ code: 'c' })
  for (const s of await gate.sessions()) if (!s.current) await gate.endSession({ id: s.id })
  const { url } = await gate.ticket({ path: '/p', expiresIn: 60 })
  await gate.decrypt({ encryptedData: 'e', iv: 'i' })
  await gate.logout({ all: true })
  await gate.logout()
  try {
    await gate.session()
  } catch (err) {
    if (err instanceof GateError) return err.code + (err.retryAfter || status + left)
  }
  // @ts-expect-error: a call needs an address
  await gate.request({ data: 1 })
  // @ts-expect-error: a gate has an address
  createGate({})
  return phoneNumber + url
}
