-- Lists values of a run, some at a time, in the order of their index.
--
-- KEYS  1 META of the shard
-- ARGV  1 tenant, 2 run, 3 '' for the first ones, or the cursor of the reply before
-- Reply {cursor, or nothing if these were the last ones, task, key, unix ms until which it is kept or 0, unix µs at which
--       it was stored, ...}
--
-- Bounded: 400 values, of which none is read itself.
-- Reads only.

-- @include lib/intact.lua

local AT_ONCE = 400
local index, from = OWN .. 'index:' .. #ARGV[1] .. ':' .. ARGV[1] .. ARGV[2], ARGV[3] == '' and '-' or '(' .. ARGV[3]
local entries = call('ZRANGEBYLEX', index, from, '+', 'LIMIT', 0, AT_ONCE)
local reply = { #entries == AT_ONCE and entries[AT_ONCE] }
for _, entry in ipairs(entries) do
  local key, stored_at, kept_until, at = struct.unpack('>Hc0dd', entry)
  if kept_until == 0 or kept_until > shard.ms then
    local n = #reply
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = entry:sub(at), key, integer(kept_until), integer(stored_at)
  end
end
return reply
