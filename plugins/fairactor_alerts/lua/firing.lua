-- Lists the alerts of rules that are broken now.
--
-- KEYS  1 META of the shard
-- Reply {rule, sentence, ...}
--
-- Bounded: 1,000 alerts, see note.lua.
-- Reads only.

-- @include lib/intact.lua

local reply, flat = {}, call('HGETALL', OWN .. 'alerts')
for i = 1, #flat, 2 do
  local alert = cmsgpack.unpack(flat[i + 1])
  if alert[2] == 'firing' then
    reply[#reply + 1], reply[#reply + 2] = flat[i]:match('^(.-)\31'), alert[5]
  end
end
return reply
