// Types of the client of wxgate. The calls take what the calls of wx take, and return a
// promise unless success, fail or complete is given.

export interface Callbacks<R> {
  success?: (res: R) => void
  fail?: (err: any) => void
  complete?: (res: any) => void
}

type WithCallback = { success: Function } | { fail: Function } | { complete: Function }

export interface Call<O, R> {
  (options: O & Callbacks<R> & WithCallback): void
  (options: O): Promise<R>
}

/** A call without options that are required. */
export interface EasyCall<O, R> extends Call<O, R> {
  (): Promise<R>
}

export interface Response<T = any> {
  statusCode: number
  header: Record<string, any>
  data: T
  [more: string]: any
}

export interface Options {
  /** A path of the site, or an address below baseURL. The session goes nowhere else. */
  url: string
  header?: Record<string, string>
  /** Gets the task of the platform, to abort it or to watch its progress. */
  onTask?: (task: any) => void
  [more: string]: any
}

export interface Session {
  /** Seconds until the session ends. */
  expiresIn: number
  /** Whether the gate knows the user's unionid. */
  unionidBound: boolean
}

export interface OwnSession {
  /** For endSession. It opens nothing. */
  id: string
  /** The time of the login, as 2026-01-31T15:04:05Z. */
  created: string
  /** Noted lazily: it may be up to an hour old. */
  lastUsed: string
  /** Whether it is the session that asks. */
  current: boolean
}

export interface Storage {
  get (key: string): any
  set (key: string, value: any): any
  remove (key: string): any
}

export interface Config {
  /** Address of the site behind the gate, e.g. https://api.example.com. */
  baseURL: string
  /** This mini program, where one gate serves several. */
  appid?: string
  /** The prefix of the gate's endpoints. Default: /wx. */
  endpoints?: string
  /** The header for the session, where the gate has `token header …`. */
  tokenHeader?: string
  /** The platform: wx, uni, Taro, or what has their calls. Default: wx, else uni. */
  api?: object
  /** Single calls of the platform, in place of those of api. */
  login?: (options: any) => any
  request?: (options: any) => any
  uploadFile?: (options: any) => any
  downloadFile?: (options: any) => any
  connectSocket?: (options: any) => any
  /** Where the session is kept. Default: getStorageSync and its kin. */
  storage?: Storage
}

/** A refusal of the gate, or the reason why a login failed. */
export declare class GateError extends Error {
  /**
   * A problem code of the gate, or login_failed, network, logged_out, other_host,
   * http_<status>.
   */
  code: string
  status?: number
  detail?: string
  /** The operator finds the refusal in the log of the gate by this. */
  id?: string
  /** Seconds to wait before the next try. */
  retryAfter?: number
  /** The data were sealed before the last login: get them from wx again. */
  loginAgain?: boolean
  cause?: any
}

export interface Gate {
  /** wx.request with the session. Resolves for every status, as wx.request does. */
  request: Call<Options, Response>
  uploadFile: Call<Options, Response<string>>
  downloadFile: Call<Options, Response>
  /** Resolves with the SocketTask when the socket is open. */
  connectSocket: Call<Options, any>
  /** Logs in anew. The other calls log in by themselves. */
  login: EasyCall<{}, Session>
  /** Ends the session, or with all every session of the user. */
  logout: EasyCall<{ all?: boolean }, void>
  /** Asks the gate about the session. */
  session: EasyCall<{}, Session>
  /** Lists the user's own sessions, the newest first. */
  sessions: EasyCall<{}, OwnSession[]>
  /** Ends one of the user's own sessions. Ending the current one is a log-out. */
  endSession: Call<{ id: string }, void>
  /** Opens sealed open data. */
  decrypt: Call<{ encryptedData: string, iv: string, rawData?: string, signature?: string }, any>
  /** Looks up the telephone number to the code of getPhoneNumber. */
  phone: Call<{ code: string },
    { phoneNumber: string, purePhoneNumber: string, countryCode: string }>
  /** Makes a link that is good without a header, for <image>, <video> and web-view. */
  ticket: Call<{ path: string, expiresIn?: number }, { url: string, expiresIn: number }>
}

/** Returns the client of one gate. */
export declare function createGate (config: Config): Gate
