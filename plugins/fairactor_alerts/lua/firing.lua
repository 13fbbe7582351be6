-- Lists the alerts of rules that are broken now.
--
-- KEYS  1 META of the shard
-- Reply {rule, subject, unix ms since when, value, ...}; a value is a string
--
-- Bounded: 1,000 alerts, see note.lua.
-- Reads only.

-- @include lib/intact.lua

local reply, flat = {}, call('HGETALL', OWN .. 'alerts')
for i = 1, #flat, 2 do
  local alert = cmsgpack.unpack(flat[i + 1])
  if alert[2] == 'firing' then
    local rule, subject = flat[i]:match('^(.-)\31(.*)$')
    for _, part in ipairs({ rule, subject, integer(alert[1]), tostring(alert[3]) }) do reply[#reply + 1] = part end
  end
end
return reply
