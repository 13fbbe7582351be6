-- What plugins do in this script. Their texts stand where `-- @hook` says: they read and decide there, and what they write
-- is written by the functions that they leave in `later`.

local later = {}
local function write_later()
  for i, write in ipairs(later) do
    write()
    later[i] = nil
  end
end

-- From now on every runtime of the namespace needs that plugin.
local function depend_on(plugin)
  local before = shard.plugins or ','
  if before:find(',' .. plugin .. ',', 1, true) then return end
  shard.plugins = before .. plugin .. ','
  later[#later + 1] = function() call('HSET', META, 'plugins', shard.plugins) end
end
