"""Models of keras-hub and kimm in their smallest configurations, with random weights. Every builder takes nothing and returns a built model.

Backbones get the head that their users put on them: inputs of a fixed length, the backbone as a nested model, and a dense layer.
"""

import functools

import keras
import keras_hub
import kimm
from keras import layers
from keras_hub.src.models.vae.vae_backbone import VAEBackbone  # it has no public name

TOKENS, LENGTH, WIDTH = 40, 12, 16
TEXT = dict(vocabulary_size=TOKENS, num_layers=2, hidden_dim=WIDTH, intermediate_dim=32)
HEADS = dict(num_heads=2)
GROUPED = dict(num_query_heads=4, num_key_value_heads=2)
IMAGE = (32, 32, 3)
models, hub = keras_hub.models, keras_hub.layers


def _token_inputs(backbone, shapes=()):
    """Fixed lengths in place of a backbone's free ones."""
    shapes = dict.fromkeys(backbone.input, (LENGTH,)) | dict(shapes)
    return {name: keras.Input(shapes[name], dtype=tensor.dtype, name=name) for name, tensor in backbone.input.items()}


def _classifier(backbone):
    """A backbone for text with a dense layer on its first token, or on what the backbone makes of it."""
    inputs = _token_inputs(backbone)
    hidden = backbone(inputs)
    first = hidden["pooled_output"] if isinstance(hidden, dict) else hidden[:, 0]
    return keras.Model(inputs, layers.Dense(3, name="classes")(first), name=f"{backbone.name}_classifier")


def _language_model(backbone):
    """A decoder whose logits come from its own table of tokens, as in keras-hub's causal language models."""
    inputs = _token_inputs(backbone)
    return keras.Model(inputs, backbone.token_embedding(backbone(inputs), reverse=True), name=f"{backbone.name}_language_model")


def _image_classifier(backbone):
    """A backbone for images with pooling and a dense layer."""
    inputs = keras.Input(IMAGE, name="image")
    hidden = backbone(inputs)
    pool = layers.GlobalAveragePooling1D() if len(hidden.shape) == 3 else layers.GlobalAveragePooling2D()
    return keras.Model(inputs, layers.Dense(3, name="classes")(pool(hidden)), name=f"{backbone.name}_classifier")


def transformer_encoder():
    inputs = keras.Input((LENGTH, WIDTH), name="sequence")
    x = hub.TransformerEncoder(32, 2)(inputs)
    x = hub.TransformerEncoder(32, 2, activation="gelu", normalize_first=True)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name="transformer_encoder")


def transformer_decoder():
    inputs = {"sequence": keras.Input((LENGTH, WIDTH), name="sequence"), "memory": keras.Input((6, WIDTH), name="memory")}
    x = hub.TransformerDecoder(32, 2)(inputs["sequence"], inputs["memory"])
    x = hub.TransformerDecoder(32, 2)(x, inputs["memory"])
    return keras.Model(inputs, layers.Dense(3)(x), name="transformer_decoder")


def token_and_position():
    tokens = keras.Input((LENGTH,), dtype="int32", name="token_ids")
    x = hub.TokenAndPositionEmbedding(TOKENS, LENGTH, WIDTH, mask_zero=True)(tokens)
    x = hub.TransformerEncoder(32, 2)(x)
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name="token_and_position")


def sine_position():
    tokens = keras.Input((LENGTH,), dtype="int32", name="token_ids")
    x = layers.Embedding(TOKENS, WIDTH)(tokens)
    x = hub.TransformerEncoder(32, 2)(x + hub.SinePositionEncoding()(x))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)), name="sine_position")


def rotary_rms():
    inputs = keras.Input((LENGTH, 2, 8), name="heads")
    x = layers.Reshape((LENGTH, WIDTH))(hub.RotaryEmbedding()(inputs))
    return keras.Model(inputs, layers.Dense(3)(hub.RMSNormalization(WIDTH)(x)), name="rotary_rms")


def bert():
    return _classifier(models.BertBackbone(**TEXT, **HEADS, max_sequence_length=LENGTH))


def bert_text_classifier():
    backbone = models.BertBackbone(**TEXT, **HEADS, max_sequence_length=LENGTH)
    return models.BertTextClassifier(backbone=backbone, num_classes=3, preprocessor=None)


def albert():
    return _classifier(models.AlbertBackbone(**TEXT, **HEADS, embedding_dim=8, max_sequence_length=LENGTH))


def electra():
    sizes = {"vocab_size" if name == "vocabulary_size" else name: size for name, size in TEXT.items()}
    return _classifier(models.ElectraBackbone(**sizes, **HEADS, embedding_dim=WIDTH, max_sequence_length=LENGTH))


def f_net():
    return _classifier(models.FNetBackbone(**TEXT, max_sequence_length=LENGTH))


def _encoder(name):
    return _classifier(getattr(models, name)(**TEXT, **HEADS, max_sequence_length=LENGTH))


def deberta():
    return _classifier(models.DebertaV3Backbone(**TEXT, **HEADS, max_sequence_length=LENGTH, bucket_size=4))


def gpt_neo_x():
    return _language_model_head(models.GPTNeoXBackbone(**TEXT, **HEADS, max_sequence_length=LENGTH))


def _language_model_head(backbone):
    """A decoder with a dense layer on every token."""
    inputs = _token_inputs(backbone)
    return keras.Model(inputs, layers.Dense(TOKENS, name="tokens")(backbone(inputs)), name=f"{backbone.name}_language_model")


def gpt2():
    return _language_model_head(models.GPT2Backbone(**TEXT, **HEADS, max_sequence_length=LENGTH))


def gpt2_tied():
    return _language_model(models.GPT2Backbone(**TEXT, **HEADS, max_sequence_length=LENGTH))


def opt():
    return _language_model(models.OPTBackbone(**TEXT, **HEADS, max_sequence_length=LENGTH))


def bloom():
    return _language_model(models.BloomBackbone(**TEXT, **HEADS))


def falcon():
    return _language_model_head(models.FalconBackbone(**TEXT, num_attention_heads=2))


def gemma():
    return _language_model(models.GemmaBackbone(**TEXT, **GROUPED, head_dim=4))


def _grouped_decoder(name):
    return _language_model(getattr(models, name)(**TEXT, **GROUPED))


def t5():
    backbone = models.T5Backbone(**TEXT, **HEADS)
    inputs = _token_inputs(backbone)
    hidden = backbone(inputs)["decoder_sequence_output"]
    return keras.Model(inputs, layers.Dense(TOKENS, name="tokens")(hidden), name="t5_language_model")


def bart():
    backbone = models.BartBackbone(**TEXT, **HEADS, max_sequence_length=LENGTH)
    inputs = _token_inputs(backbone)
    hidden = backbone(inputs)["decoder_sequence_output"]
    return keras.Model(inputs, layers.Dense(TOKENS, name="tokens")(hidden), name="bart_language_model")


def whisper():
    backbone = models.WhisperBackbone(**TEXT, **HEADS, num_mels=8, max_encoder_sequence_length=24, max_decoder_sequence_length=LENGTH)
    inputs = _token_inputs(backbone, {"encoder_features": (24, 8)})
    return keras.Model(inputs, layers.Dense(TOKENS, name="tokens")(backbone(inputs)["decoder_sequence_output"]), name="whisper")


def vit():
    backbone = models.ViTBackbone(image_shape=IMAGE, patch_size=(8, 8), num_layers=2, num_heads=2, hidden_dim=WIDTH, mlp_dim=32)
    return models.ViTImageClassifier(backbone=backbone, num_classes=3, preprocessor=None)


def deit():
    sizes = dict(image_shape=IMAGE, patch_size=(8, 8), num_layers=2, num_heads=2, hidden_dim=WIDTH, intermediate_dim=32)
    return _image_classifier(models.DeiTBackbone(**sizes))


def dino_v2():
    sizes = dict(patch_size=8, num_layers=2, hidden_dim=WIDTH, num_heads=2, intermediate_dim=32, image_shape=IMAGE)
    backbone = models.DINOV2Backbone(**sizes, position_embedding_shape=IMAGE)
    inputs = keras.Input(IMAGE, name="images")
    return keras.Model(inputs, layers.Dense(3)(backbone({"images": inputs})[:, 0]), name="dino_v2")


def swin():
    backbone = models.SwinTransformerBackbone(image_shape=IMAGE, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4, patch_size=2)
    return _image_classifier(backbone)


def _mit():
    return models.MiTBackbone(
        layerwise_depths=[1, 1],
        image_shape=IMAGE,
        hidden_dims=[8, 16],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[4, 2],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
    )


def mit():
    return _image_classifier(_mit())


def segformer():
    backbone = models.SegFormerBackbone(image_encoder=_mit(), projection_filters=8)
    return models.SegFormerImageSegmenter(backbone=backbone, num_classes=3, preprocessor=None)


def _resnet(block="basic_block", pre_activation=False, stages=(64, 64), shape=IMAGE):
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=list(stages),
        stackwise_num_blocks=[1] * len(stages),
        stackwise_num_strides=[1] + [2] * (len(stages) - 1),
        block_type=block,
        use_pre_activation=pre_activation,
        image_shape=shape,
    )


def resnet():
    return models.ResNetImageClassifier(backbone=_resnet(), num_classes=3, preprocessor=None)


def resnet_v2():
    return _image_classifier(_resnet("bottleneck_block", True))


def densenet():
    return _image_classifier(models.DenseNetBackbone(stackwise_num_repeats=[2, 2], growth_rate=8, image_shape=IMAGE))


def mobilenet():
    backbone = models.MobileNetBackbone(
        stackwise_expansion=[[8, 16], [24]],
        stackwise_num_blocks=[2, 1],
        stackwise_num_filters=[[8, 8], [16]],
        stackwise_kernel_size=[[3, 3], [5]],
        stackwise_num_strides=[[2, 1], [1]],
        stackwise_se_ratio=[[None, None], [0.25]],
        stackwise_activation=[["relu6", "relu6"], ["hard_swish"]],
        stackwise_padding=[[1, 1], [2]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=24,
        squeeze_and_excite=0.5,
        image_shape=IMAGE,
        input_num_filters=8,
    )
    return _image_classifier(backbone)


def mobilenet_v5():
    backbone = models.MobileNetV5Backbone(
        stackwise_block_types=[["er"], ["uir", "mqa"]],
        stackwise_num_blocks=[1, 2],
        stackwise_num_filters=[[8], [16, 16]],
        stackwise_strides=[[2], [2, 1]],
        stackwise_act_layers=[["relu"], ["gelu", "gelu"]],
        stackwise_exp_ratios=[[4.0], [2.0, 1.0]],
        stackwise_se_ratios=[[0.0], [0.0, 0.0]],
        stackwise_dw_kernel_sizes=[[0], [5, 0]],
        stackwise_dw_start_kernel_sizes=[[0], [0, 0]],
        stackwise_dw_end_kernel_sizes=[[0], [0, 0]],
        stackwise_exp_kernel_sizes=[[3], [0, 0]],
        stackwise_pw_kernel_sizes=[[1], [0, 0]],
        stackwise_num_heads=[[0], [0, 2]],
        stackwise_key_dims=[[0], [0, 8]],
        stackwise_value_dims=[[0], [0, 8]],
        stackwise_kv_strides=[[0], [0, 1]],
        stackwise_use_cpe=[[False], [False, False]],
        use_msfa=False,
        image_shape=IMAGE,
    )
    return _image_classifier(backbone)


def efficientnet():
    backbone = models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3, 5],
        stackwise_num_repeats=[1, 1, 1],
        stackwise_input_filters=[8, 8, 16],
        stackwise_output_filters=[8, 16, 16],
        stackwise_expansion_ratios=[1, 4, 4],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.0, 0.25],
        stackwise_strides=[1, 2, 1],
        stackwise_block_types=["fused", "fused", "unfused"],
        stackwise_force_input_filters=[0] * 3,
        stackwise_nores_option=[False] * 3,
        num_features=32,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        input_shape=IMAGE,
    )
    return _image_classifier(backbone)


def _csp(block):
    backbone = models.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stem_padding="same",
        stackwise_depth=[1, 1],
        stackwise_strides=2,
        stackwise_num_filters=[8, 16],
        down_growth=True,
        bottle_ratio=[0.5, 1.0],
        block_ratio=[1.0, 0.5],
        expand_ratio=[2.0, 1.0],
        block_type=block,
        stage_type="csp",
        image_shape=IMAGE,
    )
    return _image_classifier(backbone)


def vgg():
    return _image_classifier(models.VGGBackbone(stackwise_num_repeats=[1, 2], stackwise_num_filters=[8, 16], image_shape=IMAGE))


def xception():
    return _image_classifier(
        models.XceptionBackbone(
            stackwise_conv_filters=[[8, 8], [8, 16], [16, 16]], stackwise_pooling=[True, True, False], image_shape=IMAGE
        )
    )


def hgnet_v2():
    backbone = models.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 16],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=True,
        stackwise_stage_filters=[(8, 8, 16, 1, 2, 3), (16, 8, 16, 1, 2, 3)],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
        image_shape=IMAGE,
    )
    inputs = keras.Input(IMAGE, name="image")
    hidden = backbone(inputs)
    hidden = list(hidden.values())[-1] if isinstance(hidden, dict) else hidden
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(hidden)), name="hgnet_v2")


def retinanet():
    encoder = _resnet("bottleneck_block", stages=(64, 64, 64, 64), shape=(64, 64, 3))
    return models.RetinaNetBackbone(image_encoder=encoder, min_level=3, max_level=6, use_p5=True, image_shape=(64, 64, 3))


def deeplab():
    encoder = _resnet("bottleneck_block", stages=(64, 64, 64, 64), shape=(64, 64, 3))
    backbone = models.DeepLabV3Backbone(
        image_encoder=encoder,
        projection_filters=8,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P5",
        upsampling_size=8,
        dilation_rates=[2, 3],
        image_shape=(64, 64, 3),
    )
    return models.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=3, activation=None, preprocessor=None)


def vit_det():
    """The image encoder of SAM."""
    return models.ViTDetBackbone(
        image_shape=IMAGE,
        patch_size=4,
        hidden_size=8,
        num_layers=2,
        global_attention_layer_indices=[1],
        intermediate_dim=16,
        num_heads=2,
        num_output_channels=8,
        window_size=2,
    )


def clip():
    vision = models.CLIPVisionEncoder(
        patch_size=8, hidden_dim=WIDTH, num_layers=2, num_heads=2, intermediate_dim=32, image_shape=IMAGE, name="vision_encoder"
    )
    text = models.CLIPTextEncoder(
        vocabulary_size=TOKENS,
        embedding_dim=WIDTH,
        hidden_dim=WIDTH,
        num_layers=2,
        num_heads=2,
        intermediate_dim=32,
        max_sequence_length=LENGTH,
        name="text_encoder",
    )
    backbone = models.CLIPBackbone(vision_encoder=vision, text_encoder=text, projection_dim=8)
    inputs = {"images": keras.Input(IMAGE, name="images"), "token_ids": keras.Input((LENGTH,), dtype="int32", name="token_ids")}
    outputs = {"image": backbone.get_vision_embeddings(inputs["images"]), "text": backbone.get_text_embeddings(inputs["token_ids"])}
    return keras.Model(inputs, outputs, name="clip")


def vae():
    backbone = VAEBackbone([32, 32], [1, 1], [32, 32], [1, 1], sampler_method="mode", sample_channels=8)
    inputs = keras.Input((16, 16, 3), name="image")
    return keras.Model(inputs, backbone(inputs), name="vae")


def _kimm(name, size=32):
    return getattr(kimm.models, name)(input_shape=(size, size, 3), classes=3, weights=None, include_preprocessing=False)


HUB = {
    "TransformerEncoder": transformer_encoder,
    "TransformerDecoder": transformer_decoder,
    "TokenAndPositionEmbedding": token_and_position,
    "SinePositionEncoding": sine_position,
    "RotaryEmbedding, RMSNormalization": rotary_rms,
    "BERT": bert,
    "BertTextClassifier": bert_text_classifier,
    "RoBERTa": functools.partial(_encoder, "RobertaBackbone"),
    "XLM-RoBERTa": functools.partial(_encoder, "XLMRobertaBackbone"),
    "DistilBERT": functools.partial(_encoder, "DistilBertBackbone"),
    "ALBERT": albert,
    "DeBERTaV3": deberta,
    "ELECTRA": electra,
    "F-Net": f_net,
    "GPT-2": gpt2,
    "GPT-2, tied": gpt2_tied,
    "GPT-NeoX": gpt_neo_x,
    "OPT": opt,
    "Bloom": bloom,
    "Falcon": falcon,
    "Gemma": gemma,
    "Llama": functools.partial(_grouped_decoder, "LlamaBackbone"),
    "Mistral": functools.partial(_grouped_decoder, "MistralBackbone"),
    "Phi3": functools.partial(_grouped_decoder, "Phi3Backbone"),
    "Qwen": functools.partial(_grouped_decoder, "QwenBackbone"),
    "T5": t5,
    "BART": bart,
    "Whisper": whisper,
    "ViT": vit,
    "DeiT": deit,
    "DINOv2": dino_v2,
    "Swin": swin,
    "MiT": mit,
    "SegFormer": segformer,
    "ResNet": resnet,
    "ResNetV2": resnet_v2,
    "DenseNet": densenet,
    "MobileNet": mobilenet,
    "MobileNetV5": mobilenet_v5,
    "EfficientNet": efficientnet,
    "CSPDarkNet": functools.partial(_csp, "dark_block"),
    "CSPNet": functools.partial(_csp, "bottleneck_block"),
    "VGG": vgg,
    "Xception": xception,
    "HGNetV2": hgnet_v2,
    "RetinaNet": retinanet,
    "DeepLabV3+": deeplab,
    "ViTDet (SAM)": vit_det,
    "CLIP": clip,
    "VAE": vae,
}
KIMM = {
    "kimm GhostNet": functools.partial(_kimm, "GhostNetW050", 64),
    "kimm MobileViT": functools.partial(_kimm, "MobileViTXXS", 64),
    "kimm RepVGG": functools.partial(_kimm, "RepVGGA0"),
    "kimm TinyNet": functools.partial(_kimm, "TinyNetE", 64),
    "kimm LCNet": functools.partial(_kimm, "LCNet035", 64),
}
