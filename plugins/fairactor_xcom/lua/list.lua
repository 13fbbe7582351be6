-- Lists the values of a run.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 run
-- Reply {task, key, unix ms until which it is kept or 0, unix µs at which it was stored, ...}
--
-- Reads only.

-- @include lib/intact.lua

local found, reply = call('HGETALL', OWN .. #ARGV[1] .. ':' .. ARGV[1] .. ARGV[2]), {}
for i = 1, #found, 2 do
  local length, expires_at, stored_at = struct.unpack('>H', found[i]), struct.unpack('>dd', found[i + 1])
  if length > 0 and (expires_at == 0 or expires_at > shard.ms) then
    local n = #reply
    reply[n + 1], reply[n + 2] = found[i]:sub(3, 2 + length), found[i]:sub(3 + length)
    reply[n + 3], reply[n + 4] = integer(expires_at), integer(stored_at)
  end
end
return reply
