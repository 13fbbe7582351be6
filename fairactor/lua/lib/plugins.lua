-- What plugins do in this script. Their texts stand where `-- @hook` says: they read and decide there, and what they write
-- is written by the functions that they leave in `later`.

local later, last = {}, {} -- what comes before the records of tasks are written, and what comes after
local function write_these(writes)
  for i, write in ipairs(writes) do
    write()
    writes[i] = nil
  end
end

-- What the texts of one plugin have in common.
local shared = {}
local function share(plugin)
  shared[plugin] = shared[plugin] or {}
  return shared[plugin]
end

local held_here = {} -- task that this script accepts and a plugin holds back -> who, its record, and where that goes

-- From now on every runtime of the namespace needs that plugin.
local function depend_on(plugin)
  local before = shard.plugins or ','
  if before:find(',' .. plugin .. ',', 1, true) then return end
  shard.plugins = before .. plugin .. ','
  later[#later + 1] = function() call('HSET', META, 'plugins', shard.plugins) end
end
