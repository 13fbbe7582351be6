-- Lists the values of a run.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 run
-- Reply {task, key, unix ms until which it is kept or 0, unix µs at which it was stored, ...}
--
-- Reads only.

-- @include lib/intact.lua

local reply = {}
for _, entry in ipairs(call('ZRANGE', OWN .. 'index:' .. #ARGV[1] .. ':' .. ARGV[1] .. ARGV[2], 0, -1)) do
  local key, stored_at, kept_until, at = struct.unpack('>Hc0dd', entry)
  if kept_until == 0 or kept_until > shard.ms then
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = entry:sub(at), key, integer(kept_until), integer(stored_at)
  end
end
return reply
