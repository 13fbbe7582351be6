-- Deduplication keys that this script assigns to tasks.

-- @include lib/base.lua

local key_owners, keyed_fields = {}, {} -- key -> its task in this script; task, field of KEYED, ...

-- Whether the task of a packed key replaces one that waits: then the window is packed as -1 - window.
local function replaces(packed) return packed ~= '' and packed:byte() > 127 end

-- Returns a packed key as KEYED has it. `packed` is the window, 8 bytes, then the key. The length before a tenant's name
-- keeps the keys of tenants apart.
local function keyed_field(name, packed)
  local window = packed:sub(1, 8)
  if replaces(packed) then window = struct.pack('>d', -1 - struct.unpack('>d', packed)) end
  return window .. #name .. ':' .. name .. packed:sub(9)
end

local function assign_key(id, field)
  key_owners[field:sub(9)] = id
  keyed_fields[#keyed_fields + 1], keyed_fields[#keyed_fields + 2] = id, field
end

-- Returns the task that a key already stands for, or assigns the key, if any, and returns nil.
local function take_key(id, name, packed)
  if packed == '' then return nil end
  local field = keyed_field(name, packed)
  local key = field:sub(9)
  local holder = key_owners[key] or call('GET', KEY .. key)
  if holder then return holder end
  assign_key(id, field)
end

-- Takes back the keys assigned since `keyed_fields` had `n` entries.
local function drop_keys(n)
  for i = #keyed_fields, n + 1, -2 do
    local key = keyed_fields[i]:sub(9)
    if key_owners[key] == keyed_fields[i - 1] then key_owners[key] = nil end
    keyed_fields[i], keyed_fields[i - 1] = nil, nil
  end
end

local function write_keys()
  for key, id in pairs(key_owners) do call('SET', KEY .. key, id) end
  write_all('HSET', KEYED, keyed_fields)
end
