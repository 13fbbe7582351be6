-- Lists tasks that a runtime has claimed, the first claims first.
--
-- KEYS  1 META of the shard
-- ARGV  1 runtime, 2 how many tasks
-- Reply {how many it has claimed, [task, tenant, ms when it was claimed, route as JSON text, its attempt,
--        its progress, or ''] ...}
--
-- Reads only. Of more than 500 claims it looks at 500, and its caller asks for 100 tasks at most.

-- @include lib/intact.lua
-- @include lib/lanes.lua

local LOOK = 500
open_lanes()
local key, most = CLAIMS .. ARGV[1], tonumber(ARGV[2])
local number, claims = call('HLEN', key), {}
local flat = number == 0 and {} or number <= LOOK and call('HGETALL', key) or call('HRANDFIELD', key, LOOK, 'WITHVALUES')
for i = 1, #flat, 2 do claims[#claims + 1] = { flat[i], flat[i + 1], made_at(flat[i + 1]) } end
table.sort(claims, function(a, b)
  if a[3] ~= b[3] then return a[3] < b[3] end
  return a[1] < b[1]
end)

local reply = { number }
for i = 1, math.min(#claims, most) do
  local id, mark, ms = unpack(claims[i])
  local record, n = call('GETRANGE', TASK .. id, 0, 2400), #reply
  local attempt = readable(record) and select(4, struct.unpack(HEADER, record)) or 0
  reply[n + 1], reply[n + 2], reply[n + 3] = id, tenant_in(mark), integer(ms)
  reply[n + 4], reply[n + 5], reply[n + 6] = lanes.route_in(record), attempt, call('HGET', PROGRESS, id) or ''
end
return reply
