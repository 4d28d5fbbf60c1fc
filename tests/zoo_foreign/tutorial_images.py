"""Small models for images, built the way keras.io's tutorials build them. Every builder takes nothing and returns a built model."""

import keras
import numpy as np
from keras import layers, ops

SIZE, WIDTH = 16, 8


class Patches(layers.Layer):
    """Squares of an image as rows of numbers."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, images):
        height, width, channels = images.shape[1:]
        patches = ops.image.extract_patches(images, size=self.size)
        return ops.reshape(patches, (-1, (height // self.size) * (width // self.size), self.size * self.size * channels))

    def get_config(self):
        return {**super().get_config(), "size": self.size}


class PatchEncoder(layers.Layer):
    """A projection and a place for each patch."""

    def __init__(self, number, width):
        super().__init__()
        self.number = number
        self.projection = layers.Dense(width)
        self.position_embedding = layers.Embedding(number, width)

    def call(self, patch):
        positions = ops.expand_dims(ops.arange(start=0, stop=self.number, step=1), axis=0)
        return self.projection(patch) + self.position_embedding(positions)


def _perceptron(x, units, rate=0.1):
    for n in units:
        x = layers.Dropout(rate)(layers.Dense(n, activation=keras.activations.gelu)(x))
    return x


def vision_transformer():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    augmentation = keras.Sequential(
        [layers.Normalization(), layers.RandomFlip("horizontal"), layers.RandomRotation(0.02), layers.RandomZoom(0.2, 0.2)],
        name="augmentation",
    )
    augmentation.layers[0].adapt(np.random.default_rng(0).normal(size=(16, SIZE, SIZE, 3)))
    x = PatchEncoder(16, WIDTH)(Patches(4)(augmentation(inputs)))
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([layers.MultiHeadAttention(num_heads=2, key_dim=WIDTH, dropout=0.1)(y, y), x])
        x = layers.Add()([_perceptron(layers.LayerNormalization(epsilon=1e-6)(x), (16, WIDTH)), x])
    x = layers.Dropout(0.5)(layers.Flatten()(layers.LayerNormalization(epsilon=1e-6)(x)))
    return keras.Model(inputs, layers.Dense(3)(_perceptron(x, (16, 8))), name="vision_transformer")


class MixerBlock(layers.Layer):
    """A network across patches, then one across channels."""

    def __init__(self, patches, width):
        super().__init__()
        self.mlp1 = keras.Sequential([layers.Dense(patches, activation="gelu"), layers.Dense(patches)])
        self.mlp2 = keras.Sequential([layers.Dense(width, activation="gelu"), layers.Dense(width)])
        self.normalize = layers.LayerNormalization(epsilon=1e-6)

    def build(self, shape):
        return super().build(shape)

    def call(self, inputs):
        x = ops.transpose(self.normalize(inputs), axes=(0, 2, 1))
        x = ops.transpose(self.mlp1(x), axes=(0, 2, 1)) + inputs
        return x + self.mlp2(self.normalize(x))


class SpatialGating(layers.Layer):
    """gMLP's block: half of the channels gate the other half."""

    def __init__(self, patches, width):
        super().__init__()
        self.channel_projection1 = keras.Sequential([layers.Dense(width * 2, activation="gelu"), layers.Dropout(0.1)])
        self.channel_projection2 = layers.Dense(width)
        self.spatial_projection = layers.Dense(patches, bias_initializer="ones")
        self.normalize1 = layers.LayerNormalization(epsilon=1e-6)
        self.normalize2 = layers.LayerNormalization(epsilon=1e-6)

    def call(self, inputs):
        u, v = ops.split(self.channel_projection1(self.normalize1(inputs)), indices_or_sections=2, axis=2)
        v = ops.transpose(self.spatial_projection(ops.transpose(self.normalize2(v), axes=(0, 2, 1))), axes=(0, 2, 1))
        return inputs + self.channel_projection2(u * v)


def _patched(name, *blocks):
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Dense(WIDTH)(Patches(4)(inputs))
    for block in blocks:
        x = block(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name=name)


def mlp_mixer():
    return _patched("mlp_mixer", MixerBlock(16, WIDTH), MixerBlock(16, WIDTH))


def g_mlp():
    return _patched("g_mlp", SpatialGating(16, WIDTH), SpatialGating(16, WIDTH))


class ExternalAttention(layers.Layer):
    """Attention on two small memories that are dense layers."""

    def __init__(self, width, heads, memory):
        super().__init__()
        self.width, self.heads = width, heads
        self.expand = layers.Dense(width * 2)
        self.keys, self.values = layers.Dense(memory), layers.Dense(width * 2 // heads)
        self.project = layers.Dense(width)

    def call(self, x):
        patches = x.shape[1]
        x = ops.reshape(self.expand(x), (-1, patches, self.heads, self.width * 2 // self.heads))
        attention = ops.softmax(self.keys(ops.transpose(x, (0, 2, 1, 3))), axis=2)
        attention = attention / (1e-9 + ops.sum(attention, axis=-1, keepdims=True))
        x = ops.reshape(ops.transpose(self.values(attention), (0, 2, 1, 3)), (-1, patches, self.width * 2))
        return self.project(x)


def external_attention():
    return _patched("external_attention", layers.LayerNormalization(epsilon=1e-5), ExternalAttention(WIDTH, 2, 6))


class Latents(layers.Layer):
    """A learned array that does not depend on the input, one copy for each sample."""

    def __init__(self, number, width):
        super().__init__()
        self.number, self.width = number, width

    def build(self, shape):
        self.array = self.add_weight(shape=(self.number, self.width), initializer="random_normal", name="latents")

    def call(self, data):
        return ops.zeros_like(data[:, :1, :1]) + self.array[None]


def perceiver():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    data = PatchEncoder(16, WIDTH)(Patches(4)(inputs))
    latents = Latents(4, WIDTH)(data)
    cross, inner = layers.MultiHeadAttention(1, WIDTH), layers.MultiHeadAttention(2, WIDTH)
    for _ in range(2):
        latents = layers.LayerNormalization()(latents + cross(latents, data))
        latents = layers.LayerNormalization()(latents + inner(latents, latents))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(latents)), name="perceiver")


def conv_mixer():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(scale=1.0 / 255)(inputs)
    x = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(WIDTH, 2, strides=2)(x)))
    for _ in range(2):
        y = layers.BatchNormalization()(layers.Activation("gelu")(layers.DepthwiseConv2D(5, padding="same")(x)))
        x = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(WIDTH, 1)(layers.Add()([y, x]))))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAvgPool2D()(x)), name="conv_mixer")


def _distance(vectors):
    x, y = vectors
    return ops.sqrt(ops.maximum(ops.sum(ops.square(x - y), axis=1, keepdims=True), 1e-7))


def siamese():
    inputs = keras.Input((SIZE, SIZE, 1))
    x = layers.AveragePooling2D(pool_size=(2, 2))(layers.Conv2D(4, (5, 5), activation="tanh")(layers.BatchNormalization()(inputs)))
    tower = keras.Model(inputs, layers.Dense(5, activation="tanh")(layers.BatchNormalization()(layers.Flatten()(x))))
    one, two = keras.Input((SIZE, SIZE, 1), name="one"), keras.Input((SIZE, SIZE, 1), name="two")
    distance = layers.Lambda(_distance, output_shape=(1,))([tower(one), tower(two)])
    return keras.Model([one, two], layers.Dense(1, activation="sigmoid")(layers.BatchNormalization()(distance)), name="siamese")


def metric_learning():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = inputs
    for filters in (4, 8):
        x = layers.Conv2D(filters, 3, strides=2, activation="relu")(x)
    x = layers.Dense(6)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.UnitNormalization()(x), name="metric_learning")


def autoencoder():
    inputs = x = layers.Input((SIZE, SIZE, 1), name="image")
    for _ in range(2):
        x = layers.MaxPooling2D((2, 2), padding="same")(layers.Conv2D(8, (3, 3), activation="relu", padding="same")(x))
    for _ in range(2):
        x = layers.Conv2DTranspose(8, (3, 3), strides=2, activation="relu", padding="same")(x)
    return keras.Model(inputs, layers.Conv2D(1, (3, 3), activation="sigmoid", padding="same")(x), name="autoencoder")


def unet():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(inputs)))
    before = x
    for filters in (8, 16):
        for _ in range(2):
            x = layers.BatchNormalization()(layers.SeparableConv2D(filters, 3, padding="same")(layers.Activation("relu")(x)))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        before = x = layers.add([x, layers.Conv2D(filters, 1, strides=2, padding="same")(before)])
    for filters in (16, 8, 8):
        for _ in range(2):
            x = layers.BatchNormalization()(layers.Conv2DTranspose(filters, 3, padding="same")(layers.Activation("relu")(x)))
        x = layers.UpSampling2D(2)(x)
        before = x = layers.add([x, layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(before))])
    return keras.Model(inputs, layers.Conv2D(3, 3, activation="softmax", padding="same")(x), name="unet")


def deeplab():
    def block(x, filters=8, size=3, rate=1):
        x = layers.Conv2D(filters, size, dilation_rate=rate, padding="same", use_bias=False)(x)
        return ops.nn.relu(layers.BatchNormalization()(x))

    inputs = keras.Input((32, 32, 3), name="image")
    low = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(low)
    pooled = block(layers.AveragePooling2D(pool_size=(8, 8))(x), size=1)
    pooled = layers.UpSampling2D(size=(8, 8), interpolation="bilinear")(pooled)
    x = layers.Concatenate(axis=-1)([pooled, block(x, size=1), block(x, rate=2), block(x, rate=3)])
    x = layers.UpSampling2D(size=(2, 2), interpolation="bilinear")(block(x, size=1))
    x = block(layers.Concatenate(axis=-1)([x, block(low, filters=4, size=1)]))
    x = layers.UpSampling2D(size=(2, 2), interpolation="bilinear")(x)
    return keras.Model(inputs, layers.Conv2D(3, (1, 1), padding="same")(x), name="deeplab")


class Downscale(layers.Layer):
    def __init__(self, filters):
        super().__init__()
        self.convA, self.convB = layers.Conv2D(filters, 3, padding="same"), layers.Conv2D(filters, 3, padding="same")
        self.reluA, self.reluB = layers.LeakyReLU(negative_slope=0.2), layers.LeakyReLU(negative_slope=0.2)
        self.bn2a, self.bn2b = layers.BatchNormalization(), layers.BatchNormalization()
        self.pool = layers.MaxPool2D((2, 2), (2, 2))

    def call(self, tensor):
        d = self.convA(tensor)
        x = self.reluA(self.bn2a(d))
        x = self.reluB(self.bn2b(self.convB(x)))
        x += d
        return x, self.pool(x)


class Upscale(layers.Layer):
    def __init__(self, filters):
        super().__init__()
        self.us = layers.UpSampling2D((2, 2))
        self.convA = layers.Conv2D(filters, 3, padding="same")
        self.reluA = layers.LeakyReLU(negative_slope=0.2)
        self.bn2a = layers.BatchNormalization()
        self.conc = layers.Concatenate()

    def call(self, x, skip):
        return self.reluA(self.bn2a(self.convA(self.conc([self.us(x), skip]))))


class DepthEstimator(keras.Model):
    """Blocks that give a skip and a smaller image, and blocks that take both."""

    def __init__(self):
        super().__init__(name="depth_estimation")
        self.down, self.up = [Downscale(4), Downscale(8)], [Upscale(8), Upscale(4)]
        self.bottle_neck = layers.Conv2D(8, 3, padding="same", activation="relu")
        self.conv_layer = layers.Conv2D(1, (1, 1), padding="same", activation="tanh")

    def call(self, x):
        c1, p1 = self.down[0](x)
        c2, p2 = self.down[1](p1)
        return self.conv_layer(self.up[1](self.up[0](self.bottle_neck(p2), c2), c1))


def depth_estimation():
    model = DepthEstimator()
    model(np.zeros((1, SIZE, SIZE, 3), "float32"))
    return model


def squeeze_net():
    def fire(x, squeeze, expand):
        x = layers.Conv2D(squeeze, 1, activation="relu", padding="same")(x)
        left = layers.Conv2D(expand, 1, activation="relu", padding="same")(x)
        return layers.Concatenate()([left, layers.Conv2D(expand, 3, activation="relu", padding="same")(x)])

    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.MaxPooling2D(3, strides=2)(layers.Conv2D(8, 3, strides=2, activation="relu")(inputs))
    x = layers.Conv2D(3, 1)(layers.Dropout(0.5)(fire(fire(x, 4, 8), 4, 8)))
    return keras.Model(inputs, layers.Softmax()(layers.GlobalAveragePooling2D()(x)), name="squeeze_net")


def contrastive_encoder():
    """An encoder with its augmentation in front and a projection behind."""
    augmenter = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(0.1, 0.1),
            layers.RandomBrightness(0.2, value_range=(0, 1)),
            layers.RandomContrast(0.2),
        ],
        name="augmenter",
    )
    encoder = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3))]
        + [layers.Conv2D(8, 3, strides=2, activation="relu") for _ in range(2)]
        + [layers.Flatten(), layers.Dense(8, activation="relu")],
        name="encoder",
    )
    projection = keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="relu"), layers.Dense(8)], name="projection_head")
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    return keras.Model(inputs, projection(encoder(augmenter(inputs))), name="contrastive_encoder")


class Involution(layers.Layer):
    """A kernel for each place, made from what is there, shared by the channels."""

    def __init__(self, channels, size, ratio):
        super().__init__()
        self.channels, self.size = channels, size
        self.kernel_gen = keras.Sequential(
            [layers.Conv2D(channels // ratio, 1), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(size**2, 1)]
        )

    def call(self, x):
        height, width = x.shape[1:3]
        kernel = ops.reshape(self.kernel_gen(x), (-1, height, width, self.size**2, 1))
        patches = ops.image.extract_patches(x, size=self.size, strides=1, padding="same")
        patches = ops.reshape(patches, (-1, height, width, self.size**2, self.channels))
        return ops.sum(kernel * patches, axis=3)


def involution():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = ops.relu(Involution(3, 3, 1)(inputs))
    x = ops.relu(Involution(3, 3, 1)(layers.MaxPooling2D((2, 2))(x)))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)), name="involution")


class WindowAttention(layers.Layer):
    """Attention inside a window, with a learned bias for each relative place."""

    def __init__(self, width, window, heads):
        super().__init__()
        self.width, self.window, self.heads = width, window, heads
        self.qkv, self.project = layers.Dense(width * 3), layers.Dense(width)
        places = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
        apart = (places[:, :, None] - places[:, None]).transpose(1, 2, 0) + window - 1
        self.index = (apart[..., 0] * (2 * window - 1) + apart[..., 1]).reshape(-1)

    def build(self, shape):
        self.table = self.add_weight(shape=((2 * self.window - 1) ** 2, self.heads), initializer="random_normal", name="table")

    def call(self, x, mask=None):
        size, depth = self.window**2, self.width // self.heads
        qkv = ops.transpose(ops.reshape(self.qkv(x), (-1, size, 3, self.heads, depth)), (2, 0, 3, 1, 4))
        q, k, v = qkv[0] * depth**-0.5, ops.transpose(qkv[1], (0, 1, 3, 2)), qkv[2]
        bias = ops.transpose(ops.reshape(ops.take(self.table, self.index, axis=0), (size, size, self.heads)), (2, 0, 1))
        scores = q @ k + bias[None]
        if mask is not None:
            windows = mask.shape[0]
            scores = ops.reshape(scores, (-1, windows, self.heads, size, size)) + mask[None, :, None]
            scores = ops.reshape(scores, (-1, self.heads, size, size))
        x = ops.reshape(ops.transpose(ops.softmax(scores, axis=-1) @ v, (0, 2, 1, 3)), (-1, size, self.width))
        return self.project(x)


class SwinBlock(layers.Layer):
    """Windows, shifted by half of their size in every second block."""

    def __init__(self, width, side, window, shift):
        super().__init__()
        self.width, self.side, self.window, self.shift = width, side, window, shift
        self.norm1, self.norm2 = layers.LayerNormalization(epsilon=1e-5), layers.LayerNormalization(epsilon=1e-5)
        self.attention = WindowAttention(width, window, 2)
        self.mlp = keras.Sequential([layers.Dense(16, activation="gelu"), layers.Dense(width)])
        self.mask = None
        if shift:
            regions = np.zeros((side, side), "float32")
            cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
            for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
                regions[rows, columns] = number
            tiles = side // window
            regions = regions.reshape(tiles, window, tiles, window).transpose(0, 2, 1, 3).reshape(-1, window**2)
            self.mask = np.where(regions[:, None] != regions[:, :, None], -100.0, 0.0).astype("float32")

    def call(self, x):
        side, window, width = self.side, self.window, self.width
        y = ops.reshape(self.norm1(x), (-1, side, side, width))
        if self.shift:
            y = ops.roll(y, shift=[-self.shift, -self.shift], axis=[1, 2])
        tiles = side // window
        y = ops.transpose(ops.reshape(y, (-1, tiles, window, tiles, window, width)), (0, 1, 3, 2, 4, 5))
        y = self.attention(ops.reshape(y, (-1, window**2, width)), mask=self.mask)
        y = ops.transpose(ops.reshape(y, (-1, tiles, tiles, window, window, width)), (0, 1, 3, 2, 4, 5))
        y = ops.reshape(y, (-1, side, side, width))
        if self.shift:
            y = ops.roll(y, shift=[self.shift, self.shift], axis=[1, 2])
        x = x + ops.reshape(y, (-1, side**2, width))
        return x + self.mlp(self.norm2(x))


def swin():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Reshape((64, WIDTH))(layers.Conv2D(WIDTH, 2, strides=2)(inputs))
    x = SwinBlock(WIDTH, 8, 4, 0)(x)
    x = SwinBlock(WIDTH, 8, 4, 2)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name="swin")


class StochasticDepth(layers.Layer):
    """Leaves a branch out at random in training."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, x, training=None):
        if training:
            keep = 1 - self.rate
            shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
            return (x / keep) * ops.floor(keep + keras.random.uniform(shape, 0, 1, seed=self.seed_generator))
        return x


class SequencePooling(layers.Layer):
    """A weighted mean over the sequence."""

    def __init__(self):
        super().__init__()
        self.attention = layers.Dense(1)

    def call(self, x):
        weights = ops.transpose(ops.softmax(self.attention(x), axis=1), axes=(0, 2, 1))
        return ops.squeeze(ops.matmul(weights, x), axis=1)


def compact_transformer():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.MaxPooling2D(3, 2, "same")(
        layers.ZeroPadding2D(1)(layers.Conv2D(WIDTH, 3, 1, "valid", use_bias=False, activation="relu")(inputs))
    )
    x = PatchEncoder(x.shape[1] * x.shape[2], WIDTH)(layers.Reshape((-1, WIDTH))(x))
    for rate in (0.0, 0.1):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = layers.Add()([StochasticDepth(rate)(layers.MultiHeadAttention(2, WIDTH, dropout=0.1)(y, y)), x])
        y = _perceptron(layers.LayerNormalization(epsilon=1e-5)(x), (WIDTH, WIDTH))
        x = layers.Add()([StochasticDepth(rate)(y), x])
    x = SequencePooling()(layers.LayerNormalization(epsilon=1e-5)(x))
    return keras.Model(inputs, layers.Dense(3)(x), name="compact_transformer")


def mobile_vit():
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(WIDTH, 3, strides=2, padding="same", activation="swish")(layers.Rescaling(1 / 255)(inputs))
    y = layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False)(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(keras.activations.swish(y))
    y = layers.BatchNormalization()(layers.Conv2D(WIDTH, 1, use_bias=False)(keras.activations.swish(layers.BatchNormalization()(y))))
    x = layers.Add()([y, x])
    patches = layers.Reshape((4, 16, WIDTH))(layers.Conv2D(WIDTH, 1, activation="swish")(x))
    z = layers.LayerNormalization(epsilon=1e-6)(patches)
    patches = layers.Add()([layers.MultiHeadAttention(num_heads=2, key_dim=WIDTH)(z, z), patches])
    z = layers.Dense(WIDTH)(layers.Dense(16, activation="swish")(layers.LayerNormalization(epsilon=1e-6)(patches)))
    folded = layers.Reshape((8, 8, WIDTH))(layers.Add()([z, patches]))
    x = layers.Conv2D(WIDTH, 3, padding="same", activation="swish")(layers.Concatenate()([x, folded]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAvgPool2D()(x)), name="mobile_vit")


class DepthToSpace(layers.Layer):
    """Channels become pixels."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def call(self, x):
        _, height, width, depth = x.shape
        x = ops.reshape(x, (-1, height, width, self.block, self.block, depth // self.block**2))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * self.block, width * self.block, depth // self.block**2))


def super_resolution():
    inputs = keras.Input((SIZE, SIZE, 1), name="image")
    x = layers.Conv2D(8, 5, padding="same", activation="relu", kernel_initializer="orthogonal")(inputs)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", kernel_initializer="orthogonal")(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", kernel_initializer="orthogonal")(x)
    return keras.Model(inputs, DepthToSpace(2)(x), name="super_resolution")


def low_light():
    """Curves that a small net estimates, applied several times to the image."""
    inputs = image = keras.Input((SIZE, SIZE, 3), name="image")
    one = layers.Conv2D(8, 3, activation="relu", padding="same")(inputs)
    two = layers.Conv2D(8, 3, activation="relu", padding="same")(one)
    curves = layers.Conv2D(9, 3, activation="tanh", padding="same")(layers.Concatenate(axis=-1)([one, two]))
    for i in range(3):
        image = image + curves[..., 3 * i : 3 * i + 3] * (ops.square(image) - image)
    return keras.Model(inputs, image, name="low_light")


def gan_generator():
    model = keras.Sequential([keras.Input((12,)), layers.Dense(4 * 4 * 8), layers.Reshape((4, 4, 8))], name="gan_generator")
    for filters in (8, 8):
        model.add(layers.Conv2DTranspose(filters, 4, strides=2, padding="same"))
        model.add(layers.LeakyReLU(negative_slope=0.2))
    model.add(layers.Conv2D(3, 5, padding="same", activation="sigmoid"))
    return model


def ocr():
    inputs = keras.Input((16, 8, 1), name="image")
    x = layers.MaxPooling2D((2, 2))(layers.Conv2D(8, (3, 3), activation="relu", kernel_initializer="he_normal", padding="same")(inputs))
    x = layers.Dropout(0.2)(layers.Dense(8, activation="relu")(layers.Reshape(target_shape=(8, 32))(x)))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, dropout=0.25))(x)
    return keras.Model(inputs, layers.Dense(11, activation="softmax")(x), name="ocr")


def radiance_field():
    """A network on sines and cosines of its input."""
    inputs = keras.Input((24, 3), name="rays")
    encoded = [inputs]
    for i in range(3):
        encoded += [ops.sin(2.0**i * inputs), ops.cos(2.0**i * inputs)]
    x = encoded = ops.concatenate(encoded, axis=-1)
    for i in range(3):
        x = layers.Dense(8, activation="relu")(x)
        if i == 1:
            x = layers.concatenate([x, encoded], axis=-1)
    return keras.Model(inputs, layers.Dense(4)(x), name="radiance_field")


def volumes():
    inputs = x = keras.Input((8, 8, 8, 1), name="scan")
    for filters in (4, 8):
        x = layers.BatchNormalization()(layers.MaxPool3D(pool_size=2)(layers.Conv3D(filters, 3, padding="same", activation="relu")(x)))
    x = layers.Dense(8, activation="relu")(layers.GlobalAveragePooling3D()(x))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Dropout(0.3)(x)), name="volumes")


IMAGES = {
    builder.__name__: builder
    for builder in (
        vision_transformer,
        mlp_mixer,
        g_mlp,
        external_attention,
        perceiver,
        conv_mixer,
        siamese,
        metric_learning,
        autoencoder,
        unet,
        deeplab,
        depth_estimation,
        squeeze_net,
        contrastive_encoder,
        involution,
        swin,
        compact_transformer,
        mobile_vit,
        super_resolution,
        low_light,
        gan_generator,
        ocr,
        radiance_field,
        volumes,
    )
}
