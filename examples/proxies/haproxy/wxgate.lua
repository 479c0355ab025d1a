-- The action lua.wx_verify asks the gate about a request. It sets the gate's identity
-- headers, or answers in the app's place.
local url = "http://127.0.0.1:9000/wx/verify"
local identity = {
	"x-wx-openid", "x-wx-unionid", "x-wx-appid", "x-wx-source", "x-wx-phone", "x-wx-assertion",
}
local refusal = {"content-type", "www-authenticate", "retry-after", "cache-control", "x-wxgate"}

local function ask(txn)
	local sent, got = {}, txn.http:req_get_headers()
	for _, name in ipairs({"authorization", "x-3rd-session"}) do
		if got[name] then
			sent[name] = {}
			for i = 0, #got[name] do
				table.insert(sent[name], got[name][i])
			end
		end
	end
	return core.httpclient():get{url = url, headers = sent, timeout = 2000}
end

core.register_action("wx_verify", {"http-req"}, function(txn)
	local ok, res = pcall(ask, txn)
	if ok and res and res.status == 200 then
		for _, name in ipairs(identity) do
			local value = res.headers[name] and res.headers[name][0]
			if value and value ~= "" then
				txn.http:req_set_header(name, value)
			end
		end
		return
	end
	local reply = txn:reply()
	reply:set_status(503)
	reply:add_header("retry-after", "1")
	if ok and res and res.status >= 400 and res.headers["x-wxgate"] then
		reply = txn:reply()
		reply:set_status(res.status)
		for _, name in ipairs(refusal) do
			local value = res.headers[name] and res.headers[name][0]
			if value then
				reply:add_header(name, value)
			end
		end
		reply:set_body(res.body or "")
	end
	txn:done(reply)
end, 0)
