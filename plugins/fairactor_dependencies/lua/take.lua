-- Does what earlier scripts left to do, shuts gates that nobody opened in time, and returns messages for other shards.
-- After a while others get them too, until they are acknowledged (ack.lua).
--
-- KEYS  1 META of the shard
-- ARGV  1 the most messages, 2 ms for which only this caller gets them, 3 1 if it traces the tasks that scripts end
-- Reply {ms until there is something to do, or -1 if nobody has used the plugin yet, {ids to trace}, message, ...}
--
-- Bounded: it spends the budget of ends.lua, whatever was left to do, and returns about 1 MB.
-- Safe to repeat: a message changes nothing the second time.

-- @include lib/transition.lua

if not (shard.plugins or ''):find(',' .. SELF .. ',', 1, true) then return { -1, {} } end
local LONG = 3600000 -- ms: nothing is due
local TRACING = 60000 -- ms for which scripts note what they end, since somebody asked
local AT_ONCE = 200 -- ids to trace in one reply
local SOME = 50 -- ends whose news one call goes on to spread, at most
local BYTES, FEW_MESSAGES = 1048576, 4 -- bytes of messages in one reply; messages read at once: each may be large
local limit, carry_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = integer(shard.ms)
local mine = share(SELF)
local traces = ARGV[3] == '1'
local ended = traces and call('LRANGE', OWN .. 'ended', 0, AT_ONCE - 1) or {}

local function write_traced()
  if not traces then return end
  call('SET', OWN .. 'tracing', '1', 'PX', TRACING)
  if #ended > 0 then call('LTRIM', OWN .. 'ended', #ended, -1) end
end

local messages, bytes, some = {}, 0, nil
repeat
  some = call('ZRANGEBYSCORE', OWN .. 'outbox', '-inf', now, 'LIMIT', #messages, FEW_MESSAGES)
  for _, message in ipairs(some) do
    if #messages == limit or bytes >= BYTES then break end
    messages[#messages + 1], bytes = message, bytes + #message
  end
until #some < FEW_MESSAGES or #messages == limit or bytes >= BYTES
local are_more = #messages == limit or bytes >= BYTES
local fields = call('HRANDFIELD', OWN .. 'rest', SOME)
local run = call('ZRANGEBYSCORE', OWN .. 'gates', '-inf', now, 'LIMIT', 0, 1)[1]
if #messages == 0 and #fields == 0 and not run then
  local next_at = math.huge
  for _, key in ipairs({ OWN .. 'outbox', OWN .. 'gates' }) do
    next_at = math.min(next_at, tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) or math.huge)
  end
  write_traced()
  return { #ended == AT_ONCE and 0 or math.min(next_at - shard.ms, LONG), ended }
end
mine.rest = fields
mine.gates = run and { { run, call('GET', OWN .. 'gate:' .. run) or 'C' } } -- if it failed halfway, it ends as before
later[#later + 1] = write_traced
local dues = {}
for _, message in ipairs(messages) do dues[#dues + 1], dues[#dues + 2] = integer(shard.ms + carry_ms), message end
later[#later + 1] = function() write_all('ZADD', OWN .. 'outbox', dues) end
carry_out()
return { (#fields > 0 or run or are_more or #ended == AT_ONCE) and 0 or carry_ms, ended, unpack(messages) }
