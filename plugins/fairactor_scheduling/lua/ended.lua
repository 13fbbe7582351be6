-- The run has ended for which the next one of its schedule waits: that is due now.

-- @takes call, shard, integer from lib/base.lua
-- @takes later from lib/plugins.lua

local behind = id:sub(1, 9) == 'schedule:' and call('HGET', OWN .. 'behind', id)
if behind then
  later[#later + 1] = function()
    if call('ZADD', OWN .. 'due', 'XX', 'CH', integer(shard.ms), behind) == 1 then
      if call('PTTL', OWN .. 'leader') > 3000 then call('PEXPIRE', OWN .. 'leader', 3000) end
      call('PUBLISH', EVENTS, 'p' .. SELF)
    end
    call('HDEL', OWN .. 'behind', id) -- the last one: where the script breaks off before it, this is done again
  end
end
